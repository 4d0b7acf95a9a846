import { Command } from "commander";
import { refusal } from "../../stacks/lib/errors.ts";
import { copyWithout } from "../toolchain/images/archive.ts";
import { labImages } from "../toolchain/images/lab-images.ts";

const names = [...labImages.keys()];

export const command = new Command("image")
  .argument(
    "[name]",
    `${names.join(", ")}: print the image's full name. A full name: write that image as an archive to standard output`,
    "web",
  )
  .option("--without <digests>", "leave out the layers that a node has: sha256:… sha256:…", "")
  .action(async (name: string, { without }: { without: string }) => {
    const short = labImages.get(name);
    if (short !== undefined) {
      process.stdout.write(`${await short.ref()}\n`);
      return;
    }
    const [, repository = ""] = /^k3s-lab\/([^:]+):/.exec(name) ?? [];
    const image = labImages.get(repository);
    if (image === undefined) throw refusal(`The image ${name} is not one of the lab's: ${names.join(", ")}.`);
    const ref = await image.ref();
    if (name !== ref)
      throw refusal(
        `The image ${name} cannot be built from this checkout, whose ${repository} is ${ref}. Run \`lab up\` again.`,
      );
    const { path } = await image.archive();
    await copyWithout(path, new Set(without.split(/\s+/)), process.stdout);
  });
