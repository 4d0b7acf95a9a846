import { LabError } from "../../stacks/lib/errors.ts";
import { stateOf } from "../../stacks/lib/state.ts";
import { isOnCluster } from "../../stacks/model/config.ts";
import {
  inWords,
  recordedClaims,
  recordedVolume,
  recordedVolumes,
} from "../../stacks/observe/data-volumes.ts";
import { pathOf } from "../../stacks/observe/ownership.ts";
import { knownStacks } from "../../stacks/observe/recorded.ts";
import { type Ask, confirmLosses } from "../confirm.ts";
import type { Loss } from "../losses.ts";
import {
  clusterStackIn,
  isElsewhereToo,
  mayContain,
  othersGoingWith,
  recordedClusters,
} from "../recorded-cluster.ts";
import type { Target } from "./target.ts";

/**
 * Looks at the clusters that stay and that apps are taken away from. They must answer, since to Pulumi what is on one that
 * does not is gone; and what is not the lab's must not go with a namespace, nor data without a word.
 *
 * @throws LabError that says how to go on; with exit code 3 where something of somebody else's would be lost, or data.
 */
export async function refuseLossOfOthers(
  targets: readonly Target[],
  replace: boolean,
  ask?: Ask,
): Promise<void> {
  const goes = (cluster: string | undefined) => targets.some(({ stack, made }) => made && stack === cluster);
  const losses: Loss[] = [];
  for (const { stack, program, made, cluster } of targets) {
    if (!isOnCluster(program) || !made || (goes(cluster) && !(await isElsewhereToo(stack)))) continue;
    const found: string[] = [];
    for (const one of await recordedClusters(stack))
      if (!goes(one.stack)) found.push(...(await othersGoingWith(stack, one)));
    const resources = await stateOf(stack);
    const volumes = found.map((words) => [words, recordedVolume(resources, words)] as const);
    losses.push(...volumes.flatMap(([, volume]) => (volume ? removed(stack, volume) : [])));
    losses.push(...(await stillThere(stack, recordedClaims(resources))));
    const others = volumes.filter(([, volume]) => volume === undefined).map(([words]) => words);
    if (others.length > 0 && !replace)
      throw new LabError(
        `Deleting the apps of the stack "${stack}" would also delete what the lab did not create: ${others.slice(0, 10).join(", ")}${others.length > 10 ? ` and ${others.length - 10} more` : ""}. Nothing was touched. Move or delete that first, or run the same command with --replace to delete it too.`,
        { exitCode: 3 },
      );
  }
  for (const stack of await knownStacks()) losses.push(...(await lossesWithCluster(stack, goes)));
  await confirmLosses(losses, replace, ask, { otherwise: "back the data up first" });
}

const removed = (stack: string, volume: Parameters<typeof inWords>[0]): Loss => ({
  stack,
  what: inWords(volume),
  how: "removed",
});

/** The data of a stack that goes with its cluster, whether that stack is taken down or not. */
async function lossesWithCluster(stack: string, goes: (cluster: string) => boolean): Promise<Loss[]> {
  const resources = await stateOf(stack);
  const cluster = clusterStackIn(resources);
  if (cluster === undefined || !goes(cluster)) return [];
  return await stillThere(stack, recordedVolumes(resources));
}

/** Those of a stack's volumes whose claims are there, or may be. */
async function stillThere(stack: string, volumes: readonly Parameters<typeof inWords>[0][]): Promise<Loss[]> {
  const asked = volumes.map(async (volume) => {
    const { namespace, claim: name } = volume;
    const path = pathOf({ apiVersion: "v1", kind: "PersistentVolumeClaim", namespace, name });
    return (await mayContain(stack, path)) ? [removed(stack, volume)] : [];
  });
  return (await Promise.all(asked)).flat();
}
