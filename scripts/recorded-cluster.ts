import { join } from "node:path";
import { z } from "zod";
import { LabError } from "../stacks/lib/errors.ts";
import { accessOf } from "../stacks/lib/kube-access.ts";
import { ApiError, connect, type KubernetesApi, reach } from "../stacks/lib/kubernetes.ts";
import { knownLabId } from "../stacks/lib/lab-id.ts";
import { labDir, stateFile } from "../stacks/lib/paths.ts";
import { hasResources, type StateResource, stateOf } from "../stacks/lib/state.ts";
import { chooseContext } from "../stacks/model/kubeconfig.ts";
import { type DataVolume, observedVolumes, recordedVolumes } from "../stacks/observe/data-volumes.ts";
import { type OwnState, readOwnState } from "../stacks/observe/own-state.ts";
import { kubeSystem, othersIn } from "../stacks/observe/ownership.ts";
import { exportResources } from "./pulumi.ts";

/** A cluster that a stack's apps were created on, from its state. Pulumi deletes them there, whatever the file says. */
interface RecordedCluster {
  /** The provider reference of its objects in the state. */
  readonly provider: string;
  /** Of one context, with its credentials. */
  readonly kubeconfig: string;
  /** Its identity at the last run: the UID of kube-system. */
  readonly identity: string | undefined;
  /** The stack that created it. Undefined for an external cluster. */
  readonly stack: string | undefined;
}

/** The stack whose cluster the apps were last created on; undefined for an external cluster, or none. */
export function clusterStackIn(resources: readonly StateResource[]): string | undefined {
  const reference = resources.find(({ type }) => type === "pulumi:pulumi:StackReference");
  return z.string().safeParse(reference?.inputs?.name).data?.split("/").at(-1);
}

/**
 * The clusters that a stack's apps are on: one, or two if a run that moved them was interrupted.
 * @throws LabError if Pulumi cannot read its state.
 */
export async function recordedClusters(stack: string): Promise<readonly RecordedCluster[]> {
  const resources = await exportResources(stack);
  return resources.flatMap(({ type, urn, id, inputs }) => {
    const provider = `${urn}::${id}`;
    if (type !== "pulumi:providers:kubernetes" || !resources.some((one) => one.provider === provider))
      return [];
    const kubeconfig = clear(inputs?.kubeconfig);
    const identity = clear(inputs?.clusterIdentifier);
    if (!kubeconfig)
      throw new LabError(
        `Pulumi's state of the stack "${stack}" does not say how its cluster is reached, so it is unknown what would be deleted with its apps. Nothing was touched. Run \`scripts/lab up ${stack}\`, or restore the previous state (${stateFile(stack)}.bak).`,
      );
    return [
      { provider, kubeconfig, identity, stack: isLabs(inputs) ? clusterStackIn(resources) : undefined },
    ];
  });
}

/** Whether a provider points to a lab's cluster: only what is on such a one is lost with it. */
const isLabs = (inputs: StateResource["inputs"]): boolean => String(inputs?.deleteUnreachable) === "true";

/** Whether a stack's apps are, or may be, on an external cluster, as after an interrupted move from it. */
export const mayBeOnExternalCluster = async (stack: string): Promise<boolean> =>
  (await stateOf(stack)).some(
    ({ type, inputs }) => type === "pulumi:providers:kubernetes" && !isLabs(inputs),
  );

const secretSchema = z.object({ plaintext: z.string() }).transform(({ plaintext }) => JSON.parse(plaintext));
const textSchema = z.union([z.string(), secretSchema.pipe(z.string())]);

/** A text of an exported state, secret or not. */
const clear = (value: unknown): string | undefined => textSchema.safeParse(value).data;

/** Milliseconds for one answer: an emulated machine is slow just after its start. */
const patience = 30_000;

/** @throws Error if there is no answer; a refusal is an answer. */
async function connectTo({ kubeconfig }: RecordedCluster): Promise<KubernetesApi & { close(): void }> {
  const api = connect(await accessOf(chooseContext(kubeconfig, "of Pulumi's state")), patience);
  await api.version().catch((cause) => {
    if (cause instanceof ApiError) return;
    api.close();
    throw cause;
  });
  return api;
}

/**
 * Whether the stack that created a cluster no longer has it: what was on it is gone too. For an external cluster that
 * does not answer, this is unknown.
 */
async function isGone({ stack, identity }: Pick<RecordedCluster, "stack" | "identity">): Promise<boolean> {
  if (stack === undefined) return false;
  if (!(await hasResources(stack))) return true;
  const api = await reach(join(labDir, stack, "kubeconfig")).catch(() => undefined);
  const system = await api?.object(kubeSystem).catch(() => undefined);
  api?.close();
  return system !== undefined && identity !== undefined && system.uid !== identity;
}

/** The same for the cluster that a stack's apps were last created on. */
export const areAppsGone = (resources: readonly StateResource[]): Promise<boolean> => {
  const providers = resources.filter(({ type }) => type === "pulumi:providers:kubernetes");
  return isGone({
    stack: clusterStackIn(resources),
    identity: clear(providers.at(-1)?.inputs?.clusterIdentifier),
  });
};

/**
 * Before a stack's apps are removed from a cluster that stays, makes sure that it answers and is the one that they
 * were created on: Pulumi considers objects on an unreachable lab cluster gone; and it deletes by name.
 * @returns others' objects that would be deleted with the stack's namespaces.
 * @throws LabError with the next step.
 */
export async function othersGoingWith(stack: string, cluster: RecordedCluster): Promise<readonly string[]> {
  const where = cluster.stack ? `The cluster of the stack "${cluster.stack}"` : "The cluster";
  const stay = `so the apps of the stack "${stack}" stay`;
  let api: Awaited<ReturnType<typeof connectTo>>;
  try {
    api = await connectTo(cluster);
  } catch (cause) {
    if (process.env.PULUMI_K8S_DELETE_UNREACHABLE === "true" || (await isGone(cluster))) return [];
    const next = cluster.stack
      ? `Start it with \`scripts/lab up ${cluster.stack} ${stack}\`, or take both down with \`scripts/lab down ${cluster.stack} ${stack}\`.`
      : `Start it and run the same command again; if it is gone for good, run \`PULUMI_K8S_DELETE_UNREACHABLE=true scripts/lab down ${stack}\`.`;
    throw new LabError(
      `${where} in Pulumi's state does not answer, ${stay}: ${(cause as Error).message}. ${next}`,
      { cause },
    );
  }
  try {
    const system = await api.object(kubeSystem);
    if (cluster.identity !== undefined && system?.uid !== cluster.identity)
      throw new LabError(
        `Another cluster now answers where the apps of the stack "${stack}" were created (its kube-system has a different UID), ${stay}: Pulumi would delete objects with their names there. Start the old cluster at that address; if it is gone for good, remove its apps from Pulumi's state with \`pulumi stack rm --force ${stack}\`.`,
      );
    const held = await readOwnState(stack);
    const state: OwnState = {
      ...held,
      objects: held.objects.filter(({ provider }) => provider === cluster.provider),
    };
    return await othersIn(api, { lab: await knownLabId(), stack }, state);
  } catch (cause) {
    if (cause instanceof LabError) throw cause;
    throw new LabError(
      `${where} did not say whether objects that the lab did not create would be deleted, ${stay}: ${(cause as Error).message}. Give the kubeconfig's user read access, then run the same command again.`,
      { cause },
    );
  } finally {
    api.close();
  }
}

/**
 * A stack's volumes with data on a cluster. If it does not answer, those of the state: they may exist.
 */
export async function volumesOn(stack: string, cluster: RecordedCluster): Promise<readonly DataVolume[]> {
  const { objects } = await readOwnState(stack);
  const namespaces = objects.filter(
    ({ kind, provider }) => kind === "Namespace" && provider === cluster.provider,
  );
  try {
    const api = await connectTo(cluster);
    const asked = namespaces.map(({ name }) => observedVolumes(api, name));
    return (await Promise.all(asked).finally(() => api.close())).flat();
  } catch {
    return (await isGone(cluster)) ? [] : recordedVolumes(await stateOf(stack));
  }
}

/** Whether a stack's recorded cluster has an object. Assumed if the cluster does not answer or refuses. */
export async function mayContain(stack: string, path: string): Promise<boolean> {
  const asked = (await recordedClusters(stack)).map(async (cluster) => {
    let api: Awaited<ReturnType<typeof connectTo>>;
    try {
      api = await connectTo(cluster);
    } catch {
      return !(await isGone(cluster));
    }
    const found = await api.object(path).catch(() => "unknown");
    api.close();
    return found !== undefined;
  });
  return (await Promise.all(asked)).some(Boolean);
}
