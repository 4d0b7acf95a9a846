import { readFile } from "node:fs/promises";
import { LabError, refusal } from "../lib/errors.ts";
import { accessOf } from "../lib/kube-access.ts";
import {
  ApiError,
  connect,
  type Identity,
  type IngressClass,
  type KubernetesApi,
} from "../lib/kubernetes.ts";
import { controllerLabels, managedIngress, managedTraefik, type OnCluster } from "../model/config.ts";
import { chooseContext, type KubeContext, kubeconfigFile, kubeconfigOf } from "../model/kubeconfig.ts";
import { readOwnState } from "./own-state.ts";
import { inspectCluster, isOwn, type Owner } from "./ownership.ts";
import { refuseForbidden } from "./permissions.ts";

export interface ExternalCluster {
  /** Kubeconfig file, as the stack file names it. */
  readonly kubeconfig: string;
  readonly context: string;
}

/** An external cluster in the form that `apps` uses. */
export interface UsableCluster {
  /** A kubeconfig with one context. */
  readonly kubeconfig: string;
  /** The cluster's identity for Pulumi. */
  readonly identity: string;
}

/**
 * The cluster of a kubeconfig that no lab stack created. First checks that it answers, can route requests, and holds no
 * conflicting objects of others: otherwise Pulumi would wait for minutes and say less, or take over what it finds. Changes
 * nothing.
 * @throws LabError (exit code 2) that says what is missing or in the way, and what to do.
 */
export async function externalCluster(
  cluster: ExternalCluster,
  config: OnCluster,
  owner: Owner,
): Promise<UsableCluster> {
  const context = await readContext(cluster);
  const where = `The cluster "${cluster.context}"`;
  const api = await reachable(context);
  try {
    const state = await readOwnState(owner.stack);
    refuseIngress(cluster.context, config.ingress, await api.ingressClasses(), (one) =>
      isOwn(one, owner, state),
    );
    await refuseBarrier(where, config, api);
    await refuseUnmeasured(where, config, api);
    await refuseForbidden(api, where, config, owner.stack, state);
    return {
      kubeconfig: kubeconfigOf(context),
      identity: await inspectCluster(api, where, config, owner, state),
    };
  } catch (cause) {
    if (cause instanceof LabError) throw cause;
    throw unusable(cluster.context, cause as Error);
  } finally {
    api.close();
  }
}

async function readContext({ kubeconfig, context }: ExternalCluster): Promise<KubeContext> {
  const file = kubeconfigFile(kubeconfig);
  const text = await readFile(file, "utf8").catch((cause: NodeJS.ErrnoException) => {
    const what = cause.code === "ENOENT" ? "does not exist" : `cannot be read (${cause.code})`;
    throw refusal(
      `The kubeconfig ${file} ${what}. Set k3s-lab:cluster.kubeconfig to the file that kubectl uses for your cluster, such as ~/.kube/config.`,
      cause,
    );
  });
  return chooseContext(text, file, context);
}

async function reachable(context: KubeContext): Promise<ReturnType<typeof connect>> {
  try {
    return connect(await accessOf(context));
  } catch (cause) {
    throw unusable(context.name, cause as Error);
  }
}

function unusable(context: string, cause: Error): LabError {
  const forbidden = cause instanceof ApiError && [401, 403].includes(cause.status);
  const next = forbidden
    ? "Its user must be allowed to read and create what the apps need"
    : "Start the cluster, or set k3s-lab:cluster.context to another";
  return refusal(`The cluster "${context}" cannot be used: ${cause.message}. ${next}.`, cause);
}

/**
 * Isolated namespaces admit only the Ingress controller's pods. If there are none in the expected namespace, no request
 * would get through.
 */
async function refuseBarrier(where: string, config: OnCluster, api: KubernetesApi): Promise<void> {
  if (config.ingress === managedIngress || !config.namespaces.some(({ isolated }) => isolated)) return;
  const { ingressNamespace: namespace } = config;
  const pods = await api.pods(namespace).catch((cause) => {
    if (cause instanceof ApiError && cause.status === 404) return [];
    throw cause;
  });
  const labels = Object.entries(controllerLabels(config.ingress));
  if (pods.some(({ metadata }) => labels.every(([key, value]) => metadata.labels[key] === value))) return;
  throw refusal(
    `${where} has no pod of the Ingress controller "${config.ingress}" in the namespace ${namespace}, so it could not reach isolated namespaces. Set k3s-lab:ingressNamespace to the namespace of its pods.`,
  );
}

/** Without metrics no app is autoscaled. */
async function refuseUnmeasured(where: string, { apps }: OnCluster, api: KubernetesApi): Promise<void> {
  const autoscaled = apps.find(({ autoscaling }) => autoscaling);
  if (autoscaled === undefined || (await api.groups()).includes("metrics.k8s.io")) return;
  throw refusal(
    `${where} has no metrics-server, so nothing measures the CPU usage by which ${autoscaled.name} is scaled. Install it, or set the replicas of ${autoscaled.name} to a number.`,
  );
}

/**
 * Refuses what the cluster cannot provide: an IngressClass that it lacks, or a second controller for an existing one.
 * @throws LabError (exit code 2) that says which IngressClasses there are.
 */
export function refuseIngress(
  context: string,
  ingress: string,
  classes: readonly IngressClass[],
  own: (one: Identity) => boolean,
): void {
  // What this stack deployed itself goes away when it is no longer asked for.
  const names = classes.filter(({ metadata }) => !own(metadata)).map(({ metadata }) => metadata.name);
  const { ingressClass } = managedTraefik;
  if (ingress === managedIngress) {
    if (!names.includes(ingressClass)) return;
    throw refusal(
      `The cluster "${context}" has an IngressClass "${ingressClass}" already. Set k3s-lab:ingress to ${ingressClass} to use it; ${managedIngress} would install a second controller for it.`,
    );
  }
  if (names.includes(ingress)) return;
  const [has, choice] = names.length
    ? [`it has: ${names.join(", ")}`, `one of these, or to ${managedIngress}`]
    : ["it has none", managedIngress];
  throw refusal(
    `The cluster "${context}" has no IngressClass "${ingress}"; ${has}. Set k3s-lab:ingress to ${choice} for the lab's own Traefik.`,
  );
}
