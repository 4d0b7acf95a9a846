import type * as pulumi from "@pulumi/pulumi";
import { agentsOf, type K3dFile } from "../model/k3d-file.ts";
import { agentIdentity } from "../model/k3d-nodes.ts";
import type { ClusterNode } from "../model/outputs.ts";
import type { K3dObservation } from "../observe/k3d-host.ts";
import { K3dAgent } from "./k3d-agent.ts";
import type { K3dCluster } from "./k3d-cluster.ts";

/**
 * The agents of a cluster. Existing ones change one at a time, because their pods need another node meanwhile; new ones join
 * in parallel.
 * @param now the generation that the observation gives to what is missing. @returns the nodes as the stack exports them.
 */
export async function joinAgents(
  stack: string,
  file: K3dFile,
  cluster: K3dCluster,
  { agents, cluster: servers }: Pick<K3dObservation, "agents" | "cluster">,
  now: string,
): Promise<pulumi.Output<ClusterNode>[]> {
  const joined: K3dAgent[] = [];
  for (const node of agentsOf(file)) {
    const observed = agents.get(node.name) ?? servers;
    const identity = await agentIdentity(file, node);
    const name = `k3d-${stack}-agent-${node.index}-0`;
    const agent = new K3dAgent(name, { file, node, cluster, identity, observed });
    joined.push(agent);
    if (observed.generation !== now) await agent.done;
  }
  return joined.map(({ details }) => details);
}
