import { LabError } from "../../stacks/lib/errors.ts";
import { isOnCluster } from "../../stacks/model/config.ts";
import { isElsewhereToo, othersGoingWith, recordedClusters } from "../recorded-cluster.ts";
import type { Target } from "./target.ts";

/**
 * Looks at the clusters that stay and that apps are taken away from. They must answer, since to Pulumi what is on one that
 * does not is gone; and what is not the lab's must not go with a namespace.
 *
 * @throws LabError that says how to go on; with exit code 3 where something of somebody else's would be lost.
 */
export async function refuseLossOfOthers(targets: readonly Target[], replace: boolean): Promise<void> {
  const goes = (cluster: string | undefined) => targets.some(({ stack, made }) => made && stack === cluster);
  for (const { stack, program, made, cluster } of targets) {
    if (!isOnCluster(program) || !made || (goes(cluster) && !(await isElsewhereToo(stack)))) continue;
    const others: string[] = [];
    for (const one of await recordedClusters(stack))
      if (!goes(one.stack)) others.push(...(await othersGoingWith(stack, one)));
    if (others.length > 0 && !replace)
      throw new LabError(
        `Deleting the apps of the stack "${stack}" would also delete what the lab did not create: ${others.slice(0, 10).join(", ")}${others.length > 10 ? ` and ${others.length - 10} more` : ""}. Nothing was touched. Move or delete that first, or run the same command with --replace to delete it too.`,
        { exitCode: 3 },
      );
  }
}
