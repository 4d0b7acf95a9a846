import type * as pulumi from "@pulumi/pulumi";

/** A node of a cluster, as `cluster` and `k3d` export it. */
export interface ClusterNode {
  readonly name: string;
  readonly role: "server" | "agent";
  /** How the node is reached, as a URL: `ssh://server.cluster` a machine (`sshAlias`), `docker://k3d-k3d-server-0` a container. */
  readonly address: string;
  /** Changes when the node was recreated: what was loaded into the old one is gone. */
  readonly installation: string;
}

interface IngressAddress {
  readonly addresses: readonly string[];
  /** Absent where the cluster publishes no such port. */
  readonly http?: number | undefined;
  readonly https?: number | undefined;
}

/** What every stack that makes a cluster exports, so that `apps` and `verify` need not know how it was made. */
export interface ClusterOutputs extends Record<string, unknown> {
  /** A kubeconfig with one context; a secret. */
  readonly kubeconfig: pulumi.Output<string>;
  /** The UID of its namespace kube-system: what the cluster says of itself; another cluster has another. */
  readonly clusterId?: pulumi.Output<string>;
  readonly apiServer: pulumi.Input<string>;
  readonly ingress: pulumi.Input<IngressAddress>;
  readonly nodes: pulumi.Output<readonly ClusterNode[]>;
}
