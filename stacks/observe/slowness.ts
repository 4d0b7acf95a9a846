import { glob, readFile } from "node:fs/promises";
import { join } from "node:path";

/** Upper limit of the factor. */
const most = 12;

/**
 * How many times slower than a usual computer the slowest machine is, as measured by K3s's installation; 1 without a
 * measurement. Timeouts for machines are multiplied by it.
 * @param folders of the stacks that created the machines.
 */
export async function slowest(folders: readonly string[]): Promise<number> {
  let worst = 1;
  for (const folder of folders)
    for await (const file of glob("machines/*.slowness", { cwd: folder }))
      worst = Math.max(worst, Number(await readFile(join(folder, file), "utf8")) || 1);
  return Math.min(worst, most);
}
