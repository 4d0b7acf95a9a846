import * as k8s from "@pulumi/kubernetes";
import * as pulumi from "@pulumi/pulumi";
import { labId } from "../lib/lab-id.ts";
import { stackDir } from "../lib/paths.ts";
import { type StateResource, stateOf } from "../lib/state.ts";
import { managedIngress, type OnCluster } from "../model/config.ts";
import type { ClusterNode } from "../model/outputs.ts";
import { refuseCertificates } from "../observe/certificates.ts";
import { refuseOtherVolumes } from "../observe/data-volumes.ts";
import { externalCluster } from "../observe/external-cluster.ts";
import { observeImages } from "../observe/images.ts";
import { labCluster } from "../observe/lab-cluster.ts";
import { type OwnImage, ownImageRefs } from "../observe/own-images.ts";
import { type OwnState, readOwnState } from "../observe/own-state.ts";
import { labelling } from "../observe/ownership.ts";
import { appsPreconditions, refuseUnlessMet } from "../observe/preconditions.ts";
import { refuseReplicaForWrites } from "../observe/primary.ts";
import { slowest } from "../observe/slowness.ts";
import { NodeImages } from "./node-images.ts";
import { Traefik } from "./traefik.ts";

/** What a program needs to deploy its apps to a cluster. */
export interface ClusterInUse {
  /** Options of every component: the cluster, and the ownership marks. */
  readonly child: pulumi.ComponentResourceOptions & { readonly provider: k8s.Provider };
  /** The nodes to load images into; empty for a cluster that no stack created. */
  readonly nodes: readonly ClusterNode[];
  /** Resolves when images can be loaded into all of them. */
  readonly prepared: Promise<void>;
  /** The state that Pulumi recorded for this stack. */
  readonly state: OwnState;
  /** Whether an Ingress gets an address. */
  readonly awaitAddress: boolean;
  /** The https port as this computer reaches it; undefined if unknown. */
  readonly httpsPort: number | undefined;
  /** How many times slower than usual its machines are. */
  readonly slowness: number;
}

/**
 * The cluster that the running stack's file names.
 * @throws LabError where it cannot be used, holds conflicting objects of others, or differs from what `lab up` asked about.
 */
export async function useCluster(config: OnCluster): Promise<ClusterInUse> {
  const { cluster, namespace, ingress } = config;
  const owner = { lab: await labId(), stack: pulumi.getStack() };
  const own = "stack" in cluster;
  await refuseCertificates(owner.stack, config);
  const { kubeconfig, identity, nodes, prepared, httpsPort } = own
    ? await labCluster(cluster.stack, config, owner)
    : { ...(await externalCluster(cluster, config, owner)), ...foreign };
  refuseUnlessMet(appsPreconditions(config, own ? undefined : identity));
  const state = await readOwnState(owner.stack);
  const resources = await resourcesOn(identity, owner.stack);
  refuseOtherVolumes(owner.stack, config, resources);
  if ("database" in config) await refuseReplicaForWrites(owner.stack, config, resources);
  const provider = new k8s.Provider("cluster", {
    kubeconfig: pulumi.secret(kubeconfig),
    namespace,
    // A different cluster, even under the same name, holds nothing of the old one.
    clusterIdentifier: identity,
    // Deleting a lab cluster deletes its objects. Whether any other cluster is gone or just stopped is unknown.
    ...(own ? { deleteUnreachable: true } : {}),
    // Timeout in seconds. The first request for the API's description waits until the server has assembled it, which takes
    // longer than the usual 32 s where the processor is emulated.
    kubeClientSettings: { timeout: 300 },
  });
  return {
    child: { provider, transformations: [labelling(owner, state)] },
    nodes,
    prepared,
    httpsPort,
    slowness: "stack" in cluster ? await slowest([stackDir(cluster.stack)]) : 1,
    state,
    // K3s's Traefik gives every Ingress an address; other controllers may not.
    awaitAddress: own && ingress === "traefik",
  };
}

/** What the lab does not know of a cluster that no stack created. */
const foreign = { nodes: [], prepared: Promise.resolve(), httpsPort: undefined };

/** The recorded state, if the stack is on this cluster; objects on another cluster do not count. */
async function resourcesOn(identity: string, stack: string): Promise<readonly StateResource[]> {
  const resources = await stateOf(stack);
  const isHere = resources.some(({ inputs }) => inputs?.clusterIdentifier === identity);
  return isHere ? resources : [];
}

/** An image for pods: one that the cluster can pull, or the lab's image of this name, loaded into every node first. */
export async function podImage(
  name: OwnImage,
  pulled: string | undefined,
  { nodes, state, prepared }: Pick<ClusterInUse, "nodes" | "state" | "prepared">,
): Promise<pulumi.Output<string>> {
  const image = pulled ?? (await ownImageRefs[name]());
  const holders = pulled === undefined ? await observeImages(name, image, nodes, state) : [];
  return new NodeImages(name, { image, nodes: holders, prepared }).image;
}

/** Seconds within which a pod becomes ready once its image is present. */
const podReadyWithin = 120;

/**
 * Seconds without progress after which a rollout has failed.
 * @param pulled for each image that pods wait for, its name if nodes pull it. The time of a pull is unknown: then
 * Kubernetes' default applies.
 */
export const progressDeadline = (
  pulled: readonly (string | undefined)[],
  { slowness }: Pick<ClusterInUse, "slowness">,
): number | undefined =>
  pulled.every((image) => image === undefined) ? podReadyWithin * slowness : undefined;

/** The IngressClass of a stack's Ingresses; deploys the lab's controller if the stack uses it. */
export const ingressClassOf = (
  { ingress }: Pick<OnCluster, "ingress">,
  { child }: Pick<ClusterInUse, "child">,
): pulumi.Input<string> =>
  ingress === managedIngress ? new Traefik("traefik", {}, child).ingressClass : ingress;
