import { stackDir } from "../../stacks/lib/paths.ts";
import { isOnCluster, programOf, readOnCluster } from "../../stacks/model/config.ts";
import { slowest } from "../../stacks/observe/slowness.ts";

/**
 * How slow the stacks' machines are.
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
