import { createReadStream } from "node:fs";
import { pipeline } from "node:stream/promises";
import { Command } from "commander";
import { appImageRef } from "../../stacks/app-image.ts";
import { LabError } from "../errors.ts";
import { appImage } from "../toolchain/images/web.ts";

export const command = new Command("image")
  .argument(
    "[name]",
    "name and tag of the image, which is then written as an archive; without it the name is",
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
      );
    await pipeline(createReadStream(path), process.stdout);
  });
