import { cp, mkdir, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after } from "node:test";
import { execa } from "execa";
import { root } from "../stacks/lib/paths.ts";

/** One copy of this checkout's programs for all the tests of a file. */
let copied: Promise<string> | undefined;
after(async () => {
  if (copied) await rm(await copied, { recursive: true, force: true });
});

async function copy(): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), "k3s-lab-programs-"));
  for (const part of ["apps", "scripts", "stacks", "vagrant"])
    await cp(join(root, part), join(folder, part), {
      recursive: true,
      filter: (file) => !file.endsWith(".test.ts"),
    });
  return folder;
}

/**
 * Puts folders of this checkout's programs into another: links to files of one copy, since six hundred files take a second
 * to write. A test that changes such a file must replace it (`writeWhole`), or it changes it for the file's other tests too.
 */
export async function linkPrograms(directory: string, parts: readonly string[]): Promise<void> {
  copied ??= copy();
  const from = await copied;
  await mkdir(directory, { recursive: true });
  const link = (...how: string[]) =>
    execa("cp", [...how, ...parts.map((part) => join(from, part)), directory]);
  await link("--archive", "--link").catch(() => link("-R"));
}
