import * as pulumi from "@pulumi/pulumi";
import type { AgentInput } from "../k3d/cluster.ts";
import { containerAddress, type K3dAgentName, type K3dFile } from "../model/k3d-file.ts";
import { hostLines, nodeConfig } from "../model/k3d-nodes.ts";
import type { ClusterNode } from "../model/outputs.ts";
import type { NodeObservation } from "../observe/k3d-host.ts";
import type { K3dCluster } from "./k3d-cluster.ts";
import { k3dCommand } from "./k3d-command.ts";
import { isDone } from "./k3s-node.ts";

export interface K3dAgentArgs {
  readonly file: K3dFile;
  readonly node: K3dAgentName;
  readonly cluster: K3dCluster;
  /** Settings that replace the agent when they change, see `agentIdentity`. */
  readonly identity: string;
  /** The agent's state before this run; a missing agent is recreated. */
  readonly observed: NodeObservation;
}

/** An agent of a k3d cluster: joins and leaves without touching the other nodes. */
export class K3dAgent extends pulumi.ComponentResource {
  readonly details: pulumi.Output<ClusterNode>;
  /** Resolves when this run is done with the agent, in a preview too. */
  readonly done: Promise<void>;

  constructor(
    name: string,
    { file, node, cluster, identity, observed }: K3dAgentArgs,
    opts?: pulumi.ComponentResourceOptions,
  ) {
    super("k3s-lab:k3d:K3dAgent", name, {}, opts);
    const input: AgentInput = {
      ...node,
      config: nodeConfig(file, { role: "agent", index: node.index }),
      identity,
      hosts: hostLines(file),
      ...observed,
    };
    const command = k3dCommand(
      name,
      {
        ...{ cluster: cluster.cluster, node: node.name, input },
        actions: { create: "add-agent", update: "start-agent", delete: "remove-agent" },
        triggers: [cluster.generation, observed.generation, identity],
      },
      {
        parent: this,
        deleteBeforeReplace: true,
        // Deleting the cluster deletes its agents.
        deletedWith: cluster.command,
        customTimeouts: { create: "15m", update: "15m" },
      },
    );
    this.done = isDone(command);
    this.details = command.id.apply(() => ({
      name: node.name,
      role: "agent" as const,
      address: containerAddress(node.name),
    }));
    this.registerOutputs({ details: this.details });
  }
}
