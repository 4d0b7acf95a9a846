import { Command } from "commander";
import { k3sBundle, writeBundle } from "../host/bundle.ts";

export const command = new Command("bundle")
  .argument("<architecture>", "the machine's, as `uname -m` says it there: x86_64 or aarch64")
  .option("--id", "print the name of what is in it instead")
  .action(async (architecture: string, { id }: { id?: boolean }) => {
    const bundle = await k3sBundle(architecture, (line) => process.stderr.write(`${line}\n`));
    if (id) process.stdout.write(`${bundle.id}\n`);
    else await writeBundle(bundle, process.stdout);
  });
