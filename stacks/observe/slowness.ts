import { glob, readFile } from "node:fs/promises";
import { join } from "node:path";

/** Nobody waits longer than this many times as usual. */
const most = 12;

/**
 * How many times slower than a usual computer the slowest machine is, as K3s's installation found; 1 where nobody measured.
 * Everything that waits for machines waits so many times longer.
 * @param folders of the stacks that made the machines.
 */
export async function slowest(folders: readonly string[]): Promise<number> {
  let worst = 1;
  for (const folder of folders)
    for await (const file of glob("machines/*.slowness", { cwd: folder }))
      worst = Math.max(worst, Number(await readFile(join(folder, file), "utf8")) || 1);
  return Math.min(worst, most);
}
