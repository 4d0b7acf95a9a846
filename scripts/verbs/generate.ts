import { mkdir, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { Command } from "commander";
import { root } from "../../stacks/lib/paths.ts";
import { documents } from "../generate/documents.ts";

export const command = new Command("generate").action(async () => {
  for (const [file, text] of await documents()) {
    await mkdir(dirname(join(root, file)), { recursive: true });
    await writeFile(join(root, file), text);
    console.log(file);
  }
});
