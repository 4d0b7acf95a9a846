import { createReadStream } from "node:fs";
import { pipeline } from "node:stream/promises";
import { Command } from "commander";
import { appImage } from "../../apps/web/image.ts";
import { LabError } from "../errors.ts";

export const command = new Command("image")
  .argument("<name>", "name and tag of the image")
  .action(async (name: string) => {
    const { path, ref } = await appImage();
    if (name !== ref)
      throw new LabError(
        `The image ${name} cannot be made from this checkout, whose app is ${ref}. Run \`lab up\` again.`,
      );
    await pipeline(createReadStream(path), process.stdout);
  });
