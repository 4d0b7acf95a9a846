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
import { slowest } from "../observe/slowness.ts";
import { NodeImages } from "./node-images.ts";
import { Traefik } from "./traefik.ts";

/** What a program needs to make its apps on a cluster. */
export interface ClusterInUse {
  /** Options of every component: the cluster, and the marks that what is made there carries. */
  readonly child: pulumi.ComponentResourceOptions & { readonly provider: k8s.Provider };
  /** The nodes that images are loaded into; none of a cluster that no stack made. */
  readonly nodes: readonly ClusterNode[];
  /** What Pulumi noted of this stack. */
  readonly state: OwnState;
  /** Whether an Ingress gets an address. */
  readonly awaitAddress: boolean;
  /** The port at which its https is reached from this computer; undefined: nobody knows. */
  readonly httpsPort: number | undefined;
  /** How many times slower than usual its machines are. */
  readonly slowness: number;
}

/**
 * The cluster that the running stack's file names.
 * @throws LabError where it cannot be used, has what is not this stack's in the way, or is not what `lab up` asked about.
 */
export async function useCluster(config: OnCluster): Promise<ClusterInUse> {
  const { cluster, namespace, ingress } = config;
  const owner = { lab: await labId(), stack: pulumi.getStack() };
  const own = "stack" in cluster;
  await refuseCertificates(owner.stack, config);
  const { kubeconfig, identity, nodes, httpsPort } = own
    ? await labCluster(cluster.stack, config, owner)
    : { ...(await externalCluster(cluster, config, owner)), nodes: [], httpsPort: undefined };
  refuseUnlessMet(appsPreconditions(config, own ? undefined : identity));
  const state = await readOwnState(owner.stack);
  refuseOtherVolumes(owner.stack, config, await resourcesOn(identity, owner.stack));
  const provider = new k8s.Provider("cluster", {
    kubeconfig: pulumi.secret(kubeconfig),
    namespace,
    // Another cluster, whatever it is called: what is on the old one is not on it.
    clusterIdentifier: identity,
    // What was on a cluster of the lab's goes with it. Of any other nobody knows whether it is gone or stopped.
    ...(own ? { deleteUnreachable: true } : {}),
    // Seconds for one answer. Whoever asks first for the API's description waits until it is put together: where the
    // processor is emulated, for longer than the usual 32.
    kubeClientSettings: { timeout: 300 },
  });
  return {
    child: { provider, transformations: [labelling(owner, state)] },
    nodes,
    httpsPort,
    slowness: "stack" in cluster ? await slowest([stackDir(cluster.stack)]) : 1,
    state,
    // K3s's own Traefik gives every Ingress an address; of any other controller that is not known.
    awaitAddress: own && ingress === "traefik",
  };
}

/** What Pulumi noted of a stack that is on this cluster; what was on another is not on it. */
async function resourcesOn(identity: string, stack: string): Promise<readonly StateResource[]> {
  const resources = await stateOf(stack);
  const isHere = resources.some(({ inputs }) => inputs?.clusterIdentifier === identity);
  return isHere ? resources : [];
}

/** An image for pods: one that the cluster can pull, else the lab's own of this name, which every node is given first. */
export async function podImage(
  name: OwnImage,
  pulled: string | undefined,
  { nodes, state }: Pick<ClusterInUse, "nodes" | "state">,
): Promise<pulumi.Output<string>> {
  const image = pulled ?? (await ownImageRefs[name]());
  const holders = pulled === undefined ? await observeImages(name, image, nodes, state) : [];
  return new NodeImages(name, { image, nodes: holders }).image;
}

/** Seconds within which a pod gets ready whose image is there. */
const podReadyWithin = 120;

/**
 * Seconds without progress after which a rollout has failed.
 * @param pulled of each image that pods wait for, the one that nodes pull, which takes as long as it takes: then it is
 * Kubernetes' own number.
 */
export const progressDeadline = (
  pulled: readonly (string | undefined)[],
  { slowness }: Pick<ClusterInUse, "slowness">,
): number | undefined =>
  pulled.every((image) => image === undefined) ? podReadyWithin * slowness : undefined;

/** The IngressClass of a stack's Ingresses; where it is the lab's own, its controller is made. */
export const ingressClassOf = (
  { ingress }: Pick<OnCluster, "ingress">,
  { child }: Pick<ClusterInUse, "child">,
): pulumi.Input<string> =>
  ingress === managedIngress ? new Traefik("traefik", {}, child).ingressClass : ingress;
