import { Command } from "commander";
import { k3sBundle, writeBundle } from "../host/bundle.ts";

export const command = new Command("bundle")
  .argument("<architecture>", "architecture of the machine as `uname -m` prints it: x86_64 or aarch64")
  .option("--id", "print the content id of the bundle instead")
  .action(async (architecture: string, { id }: { id?: boolean }) => {
    const bundle = await k3sBundle(architecture, (line) => process.stderr.write(`${line}\n`));
    if (id) process.stdout.write(`${bundle.id}\n`);
    else await writeBundle(bundle, process.stdout);
  });
