import { local } from "@pulumi/command";
import * as pulumi from "@pulumi/pulumi";
import type { K3dAgentName } from "../k3d-file.ts";
import type { Observation } from "../observe.ts";
import type { ClusterNode } from "../outputs.ts";
import type { K3dCluster } from "./k3d-cluster.ts";

/** What a `K3dAgent` is made from. */
export interface K3dAgentArgs {
  readonly node: K3dAgentName;
  readonly cluster: K3dCluster;
  /** Name of the cluster in k3d. */
  readonly clusterName: string;
  /** What was seen of the agent before this run; one that is gone is made anew. */
  readonly observed: Observation;
}

/** An agent of a k3d cluster: it joins the servers that are there, and leaves them again, without touching the others. */
export class K3dAgent extends pulumi.ComponentResource {
  /** The node as the stack exports it. */
  readonly details: pulumi.Output<ClusterNode>;

  constructor(
    name: string,
    { node, cluster, clusterName, observed }: K3dAgentArgs,
    opts?: pulumi.ComponentResourceOptions,
  ) {
    super("k3s-lab:k3d:K3dAgent", name, {}, opts);
    const script = (action: string) => `"$K3S_LAB_ROOT/stacks/k3d/k3d.sh" ${action}`;
    const command = new local.Command(
      name,
      {
        create: script("add-agent"),
        update: script("start-agent"),
        delete: script("remove-agent"),
        environment: {
          LAB_STACK: pulumi.getStack(),
          K3D_CLUSTER: clusterName,
          NODE_NAME: node.name,
          NODE_ARGUMENT: node.argument,
          LAB_GENERATION: observed.generation,
          LAB_BOOT: observed.boot,
        },
        triggers: [cluster.generation, observed.generation],
      },
      {
        parent: this,
        deleteBeforeReplace: true,
        // With the cluster its agents are gone.
        deletedWith: cluster.command,
        customTimeouts: { create: "15m", update: "15m" },
      },
    );
    this.details = pulumi.all([cluster.generation, command.id]).apply(([generation]) => ({
      name: node.name,
      role: "agent" as const,
      address: `docker://${node.name}`,
      installation: `${generation}/${observed.generation}`,
    }));
    this.registerOutputs({ details: this.details });
  }
}
