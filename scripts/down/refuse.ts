import { LabError } from "../../stacks/lib/errors.ts";
import { stateOf } from "../../stacks/lib/state.ts";
import { isOnCluster, programOf } from "../../stacks/model/config.ts";
import { type DataVolume, inWords, recordedVolumes } from "../../stacks/observe/data-volumes.ts";
import { knownStacks } from "../../stacks/observe/recorded.ts";
import { confirmLosses } from "../confirm.ts";
import type { Loss } from "../losses.ts";
import {
  clusterStackIn,
  mayBeOnExternalCluster,
  othersGoingWith,
  recordedClusters,
  volumesOn,
} from "../recorded-cluster.ts";
import type { Target } from "./target.ts";

/**
 * Checks the clusters that stay while apps on them go: they must answer, since Pulumi considers objects on a silent one
 * gone, and neither data nor others' objects may be deleted without confirmation.
 * @throws LabError with the next step; exit code 3 if others' objects or data would be lost.
 */
export async function refuseLossOfOthers(targets: readonly Target[], replace: boolean): Promise<void> {
  const goes = (cluster: string | undefined) => targets.some(({ stack, made }) => made && stack === cluster);
  const losses: Loss[] = [];
  for (const { stack, program, made, cluster } of targets) {
    if (!isOnCluster(program) || !made || (goes(cluster) && !(await mayBeOnExternalCluster(stack)))) continue;
    const found: string[] = [];
    const volumes: DataVolume[] = [];
    for (const one of await recordedClusters(stack))
      if (!goes(one.stack)) {
        found.push(...(await othersGoingWith(stack, one)));
        volumes.push(...(await volumesOn(stack, one)));
      }
    losses.push(...volumes.map((volume) => removed(stack, volume)));
    const named = volumes.map(({ namespace, claim }) => `PersistentVolumeClaim ${namespace}/${claim}`);
    const others = found.filter((words) => !named.includes(words));
    if (others.length > 0 && !replace)
      throw new LabError(
        `Deleting the apps of the stack "${stack}" would also delete what the lab did not create: ${others.slice(0, 10).join(", ")}${others.length > 10 ? ` and ${others.length - 10} more` : ""}. Nothing was touched. Move or delete that first, or run the same command with --replace to delete it too.`,
        { exitCode: 3 },
      );
  }
  for (const stack of await knownStacks()) losses.push(...(await lossesWithCluster(stack, goes)));
  await confirmLosses(losses, replace, undefined, { otherwise: "back the data up first" });
}

const removed = (stack: string, volume: DataVolume): Loss => ({
  stack,
  what: inWords(volume),
  how: "removed",
});

/** The data of a stack that is lost with its cluster, whether or not that stack is taken down. */
async function lossesWithCluster(stack: string, goes: (cluster: string) => boolean): Promise<Loss[]> {
  const resources = await stateOf(stack);
  const cluster = clusterStackIn(resources);
  if (cluster === undefined || !goes(cluster)) return [];
  // After an interrupted run the state lacks the database's volumes; it always has those of other stacks.
  if (programOf(stack) !== "my-app" && recordedVolumes(resources).length === 0) return [];
  const asked = (await recordedClusters(stack)).map((one) => volumesOn(stack, one));
  return (await Promise.all(asked)).flat().map((volume) => removed(stack, volume));
}
