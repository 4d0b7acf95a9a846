import type * as pulumi from "@pulumi/pulumi";

/** A node of a cluster, as `cluster` and `k3d` export it. */
export interface ClusterNode {
  readonly name: string;
  readonly role: "server" | "agent";
  /**
   * How to reach the node, as a URL: `ssh://server.cluster` for a machine (`sshAlias`), `docker://k3d-k3d-server-0` for a
   * container.
   */
  readonly address: string;
}

interface IngressAddress {
  readonly addresses: readonly string[];
  /** Absent if the cluster publishes no such port. */
  readonly http?: number | undefined;
  readonly https?: number | undefined;
}

/** The exports of every stack that creates a cluster, so that `apps` and `verify` need not know how it was created. */
export interface ClusterOutputs extends Record<string, unknown> {
  /** A kubeconfig with one context; a secret. */
  readonly kubeconfig: pulumi.Output<string>;
  /** The cluster's identity: the UID of its namespace kube-system. */
  readonly clusterId?: pulumi.Output<string>;
  readonly apiServer: pulumi.Input<string>;
  readonly ingress: pulumi.Input<IngressAddress>;
  readonly nodes: pulumi.Output<readonly ClusterNode[]>;
}
