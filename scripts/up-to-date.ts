import { createHash } from "node:crypto";
import { glob, readFile } from "node:fs/promises";
import { join, resolve } from "node:path";
import { z } from "zod";
import { LabError } from "../stacks/lib/errors.ts";
import { writeWhole } from "../stacks/lib/files.ts";
import type { HostSettings } from "../stacks/lib/host-settings.ts";
import { labId } from "../stacks/lib/lab-id.ts";
import { root, stackDir, stateFile } from "../stacks/lib/paths.ts";
import { outputsOf, type StateResource, stateOf } from "../stacks/lib/state.ts";
import {
  type ClusterConfig,
  isOnCluster,
  type OnCluster,
  programOf,
  readOnCluster,
  readStackFile,
  stackFile,
} from "../stacks/model/config.ts";
import { readK3dFile } from "../stacks/model/k3d-file.ts";
import { kubeconfigFile as pathOf } from "../stacks/model/kubeconfig.ts";
import type { ClusterNode } from "../stacks/model/outputs.ts";
import { readServerSecrets } from "../stacks/model/server-secrets.ts";
import { areCertificatesCurrent, authorityFor, certificateFilesOf } from "../stacks/observe/certificates.ts";
import { observeCluster } from "../stacks/observe/cluster.ts";
import { externalCluster } from "../stacks/observe/external-cluster.ts";
import { observeImages } from "../stacks/observe/images.ts";
import { observeK3d } from "../stacks/observe/k3d-host.ts";
import { kubeconfigCopy, observeKubeconfig } from "../stacks/observe/kubeconfig.ts";
import { certificatesOf, isServerListMissing } from "../stacks/observe/nodes.ts";
import { type OwnImage, ownImageRefs, ownImagesOf } from "../stacks/observe/own-images.ts";
import { readOwnState } from "../stacks/observe/own-state.ts";
import {
  appsPreconditions,
  clusterPreconditions,
  k3dPreconditions,
  type Preconditions,
} from "../stacks/observe/preconditions.ts";

/** What was observed of a stack with resources, before any confirmation. */
interface StackObservation {
  /** What the stack's program must also find. */
  readonly preconditions: Preconditions;
  /**
   * Whether everything that its `up` depends on is unchanged since the last one: its file, the programs, Pulumi's state and
   * the machines themselves. Then Pulumi has nothing to do, and `lab verify`'s checks cover the cluster's contents. Never
   * true for apps on an external cluster, which may have been replaced.
   */
  readonly isUpToDate: boolean;
}

/** Observes a stack. Changes nothing. @throws LabError if a provider or a cluster does not answer. */
export async function observeStack(stack: string, settings: HostSettings): Promise<StackObservation> {
  const { preconditions, whole } = await observe(stack);
  const noted = await readFile(noteFile(stack), "utf8").catch(() => undefined);
  const isUpToDate =
    noted !== undefined &&
    whole !== undefined &&
    noted === (await fingerprint(stack, await sourcesOf(stack, settings), whole));
  return { preconditions, isUpToDate };
}

/**
 * Records that a stack is up to date. If it needs repair, or cannot be observed now, the next run handles it.
 * @param sources the result of `sourcesOf` before Pulumi ran: later edits are not applied yet.
 */
export async function noteUpToDate(stack: string, settings: HostSettings, sources: string): Promise<void> {
  try {
    if (isOnCluster(programOf(stack)) && !("stack" in (await readOnCluster(stack, root)).cluster)) return;
    const { whole } = await observe(stack);
    if (whole === undefined || sources !== (await sourcesOf(stack, settings))) return;
    await writeWhole(noteFile(stack), await fingerprint(stack, sources, whole));
  } catch (error) {
    // The record only saves seconds, and an older one matches no later state.
    if (!(error instanceof LabError || (error instanceof Error && "code" in error))) throw error;
  }
}

const noteFile = (stack: string): string => join(stackDir(stack), "settled");

interface Observed {
  readonly preconditions: Preconditions;
  /** Everything observed. Undefined if something needs repair: then the stack is never up to date. */
  readonly whole: unknown;
}

async function observe(stack: string): Promise<Observed> {
  const program = programOf(stack);
  if (program === "cluster")
    return await observeMachinesOf(stack, await readStackFile(stack as "cluster", root));
  if (program === "k3d") return await observeContainersOf(stack);
  const config = await readOnCluster(stack, root);
  if ("stack" in config.cluster)
    return {
      preconditions: appsPreconditions(config),
      whole: await observeApps(stack, config, config.cluster.stack),
    };
  const { identity } = await externalCluster(config.cluster, config, { lab: await labId(), stack });
  return { preconditions: appsPreconditions(config, identity), whole: undefined };
}

async function observeMachinesOf(stack: string, config: ClusterConfig): Promise<Observed> {
  const { observedMachines, observedNodes, wrongBalancer, ...cluster } = await observeCluster(stack, config);
  const kubeconfig = await observeKubeconfig(kubeconfigCopy(stack), certificatesOf(observedNodes));
  // Refuses what the program would refuse.
  await readServerSecrets(config.k3s.serverSecrets, stackFile(stack), root);
  const isWhole =
    [...observedMachines.values()].every(({ state, found }) => state === "running" && found === undefined) &&
    observedNodes.every(({ observed }) => observed.state === "healthy") &&
    wrongBalancer === undefined &&
    Object.keys(kubeconfig).length === 0 &&
    !isServerListMissing(stack);
  return {
    preconditions: clusterPreconditions(config, { ...cluster, observedMachines, observedNodes }),
    whole: isWhole ? [[...observedMachines], observedNodes] : undefined,
  };
}

async function observeContainersOf(stack: string): Promise<Observed> {
  const file = await readK3dFile((await readStackFile(stack as "k3d", root)).config, root);
  const now = "absent";
  const { cluster, servers, agents, registry, certificates } = await observeK3d(stack, file, now);
  const kubeconfig = await observeKubeconfig(kubeconfigCopy(stack), certificates);
  const nodes = [cluster, ...agents.values(), ...(file.registries?.create ? [registry] : [])];
  const isWhole =
    nodes.every(({ generation, boot }) => generation !== now && boot !== now) &&
    ![...servers.values()].includes(now) &&
    Object.keys(kubeconfig).length === 0;
  return {
    preconditions: await k3dPreconditions(file, { cluster, agents }, now),
    whole: isWhole ? [file, nodes, [...servers]] : undefined,
  };
}

/** The cluster in its stack's state, if its nodes still have the lab's own images that the apps use. */
async function observeApps(stack: string, config: OnCluster, cluster: string): Promise<unknown> {
  if (!(await areCertificatesCurrent(config.apps))) return undefined;
  // The first run creates the CA: compare with what exists after it.
  const state = await stateOf(cluster);
  const around = [state, await authorityFor(config.apps)];
  const own = ownImagesOf(config);
  if (own.length === 0) return around;
  const nodes = recordedNodes(state);
  // An incomplete cluster exports none.
  if (nodes === undefined) return undefined;
  const now = "absent";
  const held = await readOwnState(stack);
  const look = async (name: OwnImage) => {
    const ref = await ownImageRefs[name]();
    return [ref, await observeImages(name, ref, nodes, held, now)] as const;
  };
  const images = await Promise.all(own.map(look));
  return images.flatMap(([, nodes]) => nodes).some(({ loaded }) => loaded === now)
    ? undefined
    : [around, images];
}

/** The nodes that a cluster's stack exports; undefined if it is not up. */
export const recordedNodes = (state: readonly StateResource[]): readonly ClusterNode[] | undefined =>
  nodesSchema.safeParse(outputsOf(state)?.nodes).data;

const nodesSchema = z.array(
  z.object({
    name: z.string(),
    role: z.enum(["server", "agent"]),
    address: z.string(),
  }),
);

/** The sources of a stack's program and the files that it reads, except Pulumi's state and live resources. */
export async function sourcesOf(stack: string, settings: HostSettings): Promise<string> {
  // The first run's settings are in the order in which it found them, a later run's in that of their schema.
  const known = Object.entries(settings).sort(([one], [other]) => one.localeCompare(other));
  const hash = createHash("sha256").update(JSON.stringify([known, await labId()]));
  const programs = await Array.fromAsync(glob("{stacks,vagrant,apps}/**/*", { cwd: root }));
  const files = [stackFile(stack), "Pulumi.yaml", "package-lock.json", ...programs.sort()];
  for (const file of [...files, ...(await filesNamedBy(stack))]) {
    // For a folder or a missing file, only the name counts.
    const content = await readFile(resolve(root, file)).catch(() => undefined);
    hash.update(JSON.stringify([file, content?.length])).update(content ?? "");
  }
  return hash.digest("hex");
}

async function filesNamedBy(stack: string): Promise<readonly string[]> {
  const program = programOf(stack);
  if (program === "cluster") {
    const { serverSecrets } = (await readStackFile(stack as "cluster", root)).k3s;
    return serverSecrets === undefined ? [] : [pathOf(serverSecrets)];
  }
  if (isOnCluster(program)) {
    const { apps } = await readOnCluster(stack, root);
    return certificateFilesOf(apps).map((file) => pathOf(file));
  }
  const { config } = await readStackFile(stack as "k3d", root);
  const { files, registries } = await readK3dFile(config, root);
  // A multi-line source is the content itself.
  const sources = files.map(({ source }) => source).filter((source) => !source.includes("\n"));
  return [config, ...sources, ...(registries?.config ? [registries.config] : [])];
}

async function fingerprint(stack: string, sources: string, whole: unknown): Promise<string> {
  const hash = createHash("sha256").update(JSON.stringify([sources, whole]));
  return hash.update(await readFile(stateFile(stack)).catch(() => "")).digest("hex");
}
