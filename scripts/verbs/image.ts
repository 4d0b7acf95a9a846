import { createReadStream } from "node:fs";
import { pipeline } from "node:stream/promises";
import { Command } from "commander";
import { LabError } from "../../stacks/lib/errors.ts";
import { appImageRef } from "../../stacks/model/app-image.ts";
import { appImage } from "../toolchain/images/web.ts";

export const command = new Command("image")
  .argument(
    "[name]",
    "write the image of this name as an archive to standard output. Default: print the name of the web app's image",
  )
  .action(async (name: string | undefined) => {
    if (name === undefined) {
      process.stdout.write(`${await appImageRef()}\n`);
      return;
    }
    const { path, ref } = await appImage();
    if (name !== ref)
      throw new LabError(
        `The image ${name} cannot be made from this checkout, whose app is ${ref}. Run \`lab up\` again.`,
        { exitCode: 2 },
      );
    await pipeline(createReadStream(path), process.stdout);
  });
