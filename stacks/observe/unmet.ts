import { refusal } from "../lib/errors.ts";
import { ApiError, type Identity, type KubernetesApi } from "../lib/kubernetes.ts";
import { root } from "../lib/paths.ts";
import { readClusterPlan } from "../model/cluster-plan.ts";
import { staticVolumeOf } from "../model/concepts.ts";
import { type ConceptsConfig, type OnCluster, stackFile } from "../model/config.ts";
import { K3sFlags } from "../model/k3s-flags.ts";
import { volumesAskedFor } from "../model/volumes.ts";

/**
 * Refuses what a cluster cannot provide to a stack: a missing StorageClass, a port that another Service has, and a
 * PersistentVolume retained for a deleted claim.
 * @param where the cluster's name in messages. @param isOurs whether an object is the stack's.
 * @throws LabError (exit code 2).
 */
export async function refuseUnmet(
  api: KubernetesApi,
  where: string,
  config: OnCluster,
  stack: string,
  isOurs: (identity: Identity) => boolean,
): Promise<void> {
  await refuseStorageClass(api, where, config, stack);
  if (!("services" in config)) return;
  await refuseTakenPorts(api, config, stack, isOurs);
  await refuseReleased(api, where, config);
}

const defaultClass = "storageclass.kubernetes.io/is-default-class";

async function refuseStorageClass(
  api: Pick<KubernetesApi, "identities">,
  where: string,
  config: OnCluster,
  stack: string,
): Promise<void> {
  for (const { classKey, storageClass } of volumesAskedFor(config)) {
    if (classKey === undefined || (await bringsLocalPath(config, storageClass))) continue;
    const classes = await api
      .identities("/apis/storage.k8s.io/v1/storageclasses")
      .catch(unlessForbidden(undefined));
    if (classes === undefined) continue;
    const fits = (one: (typeof classes)[number]) =>
      storageClass === undefined ? one.annotations[defaultClass] === "true" : one.name === storageClass;
    if (classes.some(fits)) continue;
    const lacks =
      storageClass === undefined ? "has no default StorageClass" : `has no StorageClass "${storageClass}"`;
    const names = classes.map(({ name }) => name).join(", ");
    throw refusal(
      `${where} ${lacks}; it has ${names ? `${names}. Set k3s-lab:${classKey} in ${stackFile(stack)} to one of these` : `none, so nothing would provision the volume of k3s-lab:${classKey} in ${stackFile(stack)}. Install a provisioner first`}.`,
    );
  }
}

/** Whether a class is K3s's own, which a new cluster may not have yet. */
async function bringsLocalPath({ cluster }: OnCluster, storageClass: string | undefined): Promise<boolean> {
  if (!("stack" in cluster) || (storageClass !== undefined && storageClass !== "local-path")) return false;
  const { serverArgs } = await readClusterPlan(cluster.stack, root);
  return !new K3sFlags(serverArgs).disabled().has("local-storage");
}

/** ServiceLB opens a load balancer's port on every node, so two Services cannot share it. */
async function refuseTakenPorts(
  api: Pick<KubernetesApi, "services">,
  { services: { nodePort, loadBalancerPort } }: ConceptsConfig,
  stack: string,
  isOurs: (identity: Identity) => boolean,
): Promise<void> {
  const all = await api.services().catch(unlessForbidden([]));
  for (const { metadata, spec } of all.filter((one) => !isOurs(one.metadata)))
    for (const [key, port, isTaken] of [
      ["nodePort", nodePort, spec.ports.some((one) => one.nodePort === nodePort)],
      [
        "loadBalancerPort",
        loadBalancerPort,
        spec.type === "LoadBalancer" && spec.ports.some((one) => one.port === loadBalancerPort),
      ],
    ] as const)
      if (port !== undefined && isTaken)
        throw refusal(
          `${stackFile(stack)}: k3s-lab:services.${key}: ${port} is not accepted; expected a port that no other Service of the cluster has (${metadata.namespace}/${metadata.name} has it).`,
        );
}

/** A PersistentVolume with `Retain` stays bound to its claim's UID: another claim of that name waits for ever. */
async function refuseReleased(
  api: Pick<KubernetesApi, "persistentVolumes">,
  where: string,
  { namespace }: ConceptsConfig,
): Promise<void> {
  const name = staticVolumeOf(namespace);
  const volumes = await api.persistentVolumes().catch(unlessForbidden([]));
  if (volumes.some(({ metadata, status }) => metadata.name === name && status.phase === "Released"))
    throw refusal(
      `${where} has the PersistentVolume ${name} of a claim that was deleted, and keeps it from the next one. Nothing was touched. Free it, then run the same command again: \`kubectl patch persistentvolume ${name} --type=json --patch='[{"op":"remove","path":"/spec/claimRef/uid"}]'\`.`,
    );
}

/** What this user may not list is unknown. */
const unlessForbidden =
  <T>(unknown: T) =>
  (cause: unknown): T => {
    if (cause instanceof ApiError && cause.status === 403) return unknown;
    throw cause;
  };
