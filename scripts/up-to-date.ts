import { createHash } from "node:crypto";
import { glob, readFile } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";
import { writeWhole } from "../stacks/lib/files.ts";
import type { HostSettings } from "../stacks/lib/host-settings.ts";
import { labId } from "../stacks/lib/lab-id.ts";
import { root, stackDir, stateFile } from "../stacks/lib/paths.ts";
import { stateOf } from "../stacks/lib/state.ts";
import { appImageRef } from "../stacks/model/app-image.ts";
import { type AppsConfig, programOf, readStackFile, stackFile } from "../stacks/model/config.ts";
import { readK3dFile } from "../stacks/model/k3d-file.ts";
import { observeCluster } from "../stacks/observe/cluster.ts";
import { externalCluster } from "../stacks/observe/external-cluster.ts";
import { observeImages } from "../stacks/observe/images.ts";
import { observeK3d } from "../stacks/observe/k3d-host.ts";
import { kubeconfigCopy, observeKubeconfig } from "../stacks/observe/kubeconfig.ts";
import { certificatesOf } from "../stacks/observe/nodes.ts";
import { readOwnState } from "../stacks/observe/own-state.ts";
import {
  appsPreconditions,
  clusterPreconditions,
  k3dPreconditions,
  type Preconditions,
} from "../stacks/observe/preconditions.ts";

/** What was found of a stack that has resources, before anything is asked. */
interface StackObservation {
  /** What the stack's program must find too. */
  readonly preconditions: Preconditions;
  /**
   * Whether everything that its `up` depends on is as it was after the last one: its file, the programs, Pulumi's state and
   * the machines themselves. Then Pulumi has nothing to do, and `lab verify`'s checks judge what is inside the cluster. Of
   * apps on a cluster of somebody else's it is never known: that may be another one since.
   */
  readonly isUpToDate: boolean;
}

/** Looks at what a stack has. Changes nothing. @throws LabError where a provider or a cluster cannot be asked. */
export async function observeStack(stack: string, settings: HostSettings): Promise<StackObservation> {
  const { preconditions, everything } = await observe(stack);
  const noted = await readFile(noteFile(stack), "utf8").catch(() => undefined);
  const isUpToDate = noted !== undefined && noted === (await fingerprint(stack, settings, everything));
  return { preconditions, isUpToDate };
}

/** Notes that a stack is up as its file says. */
export async function noteUpToDate(stack: string, settings: HostSettings): Promise<void> {
  if (programOf(stack) === "apps" && !("stack" in (await readStackFile(stack as "apps", root)).cluster))
    return;
  const { everything } = await observe(stack);
  await writeWhole(noteFile(stack), await fingerprint(stack, settings, everything));
}

const noteFile = (stack: string): string => join(stackDir(stack), "settled");

/** @returns `everything`: all that was seen. */
async function observe(
  stack: string,
): Promise<{ readonly preconditions: Preconditions; readonly everything: unknown }> {
  const program = programOf(stack);
  if (program === "cluster") {
    const config = await readStackFile(stack as "cluster", root);
    const { observedMachines, observedNodes, ...cluster } = await observeCluster(stack, config);
    const kubeconfig = await observeKubeconfig(kubeconfigCopy(stack), certificatesOf(observedNodes));
    return {
      preconditions: clusterPreconditions(config, { ...cluster, observedMachines, observedNodes }),
      everything: [[...observedMachines], observedNodes, kubeconfig],
    };
  }
  if (program === "k3d") {
    const file = await readK3dFile((await readStackFile(stack as "k3d", root)).config, root);
    const now = "absent";
    const { cluster, agents, registry, certificates } = await observeK3d(stack, file, now);
    const kubeconfig = await observeKubeconfig(kubeconfigCopy(stack), certificates);
    return {
      preconditions: await k3dPreconditions(file, { cluster, agents }, now),
      everything: [file, cluster, [...agents], registry, kubeconfig],
    };
  }
  const config = await readStackFile(stack as "apps", root);
  if ("stack" in config.cluster)
    return {
      preconditions: appsPreconditions(config),
      everything: await observeApps(stack, config, config.cluster.stack),
    };
  const { identity } = await externalCluster(config.cluster, config, { lab: await labId(), stack });
  return { preconditions: appsPreconditions(config, identity), everything: [] };
}

/** The cluster as its stack's state has it, and whether its nodes still hold the apps' image. */
async function observeApps(stack: string, { image }: AppsConfig, cluster: string): Promise<unknown> {
  const state = await stateOf(cluster);
  if (image !== undefined) return state;
  const nodes = nodesSchema.parse(state.find(({ type }) => type === "pulumi:pulumi:Stack")?.outputs?.nodes);
  return [state, await observeImages("web", await appImageRef(), nodes, await readOwnState(stack), "absent")];
}

const nodesSchema = z
  .array(
    z.object({
      name: z.string(),
      role: z.enum(["server", "agent"]),
      address: z.string(),
      installation: z.string(),
    }),
  )
  .default([]);

async function fingerprint(stack: string, settings: HostSettings, everything: unknown): Promise<string> {
  const hash = createHash("sha256").update(JSON.stringify([settings, everything]));
  const files = [
    join(root, stackFile(stack)),
    join(root, "package-lock.json"),
    stateFile(stack),
    ...(await Array.fromAsync(glob("{stacks,vagrant,apps}/**/{*.*,Vagrantfile}", { cwd: root })))
      .sort()
      .map((file) => join(root, file)),
  ];
  for (const file of files) hash.update(file).update(await readFile(file).catch(() => ""));
  return hash.digest("hex");
}
