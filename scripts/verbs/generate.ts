import { mkdir, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { Command } from "commander";
import { documents } from "../generate/documents.ts";
import { root } from "../paths.ts";

export const command = new Command("generate").action(async () => {
  for (const [file, text] of await documents()) {
    await mkdir(dirname(join(root, file)), { recursive: true });
    await writeFile(join(root, file), text);
    console.log(file);
  }
});
