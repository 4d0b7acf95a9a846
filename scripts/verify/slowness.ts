import { glob, readFile } from "node:fs/promises";
import { join } from "node:path";
import { stackDir } from "../../stacks/lib/paths.ts";
import { isOnCluster, programOf, readOnCluster } from "../../stacks/model/config.ts";

/** Nobody waits longer than this many times as usual. */
const most = 12;

/**
 * How many times slower than a usual computer the slowest machine of these stacks is, as K3s's installation found; 1 where
 * nobody measured. Everything that waits for them waits so many times longer.
 * @param directory the folder of the stack files.
 */
export async function slownessOf(stacks: readonly string[], directory: string): Promise<number> {
  const folders = await Promise.all(
    stacks.map(async (stack) => {
      if (!isOnCluster(programOf(stack))) return [stackDir(stack)];
      const { cluster } = await readOnCluster(stack, directory);
      return "stack" in cluster ? [stackDir(cluster.stack)] : [];
    }),
  );
  return slowest(folders.flat());
}

/** The largest of the numbers that stacks' folders hold. */
export async function slowest(folders: readonly string[]): Promise<number> {
  let worst = 1;
  for (const folder of folders)
    for await (const file of glob("machines/*.slowness", { cwd: folder }))
      worst = Math.max(worst, Number(await readFile(join(folder, file), "utf8")) || 1);
  return Math.min(worst, most);
}
