import type * as pulumi from "@pulumi/pulumi";

/** A node of a cluster, as `cluster` and `k3d` export it. */
export interface ClusterNode {
  readonly name: string;
  readonly role: "server" | "agent";
  /** Where the node is reached; for machines, its address on the lab's network. */
  readonly address: string;
  /** Changes when the node was made anew: what was loaded into the old one is gone. */
  readonly installation: string;
}

/** Where HTTP requests for the apps go. */
export interface IngressAddress {
  readonly addresses: readonly string[];
  readonly http: number;
  readonly https: number;
}

/** What every stack that makes a cluster exports, so that `apps` and `verify` need not know how it was made. */
export interface ClusterOutputs extends Record<string, unknown> {
  /** A kubeconfig with one context; a secret. */
  readonly kubeconfig: pulumi.Output<string>;
  /** URL of the Kubernetes API. */
  readonly apiServer: pulumi.Input<string>;
  readonly ingress: pulumi.Input<IngressAddress>;
  readonly nodes: pulumi.Output<readonly ClusterNode[]>;
}
