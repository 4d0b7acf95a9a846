import { LabError } from "../lib/errors.ts";
import { adopt } from "./actions.ts";
import { agentAddress } from "./addresses.ts";
import { type AgentInput, type Cluster, labelsOf } from "./cluster.ts";
import {
  type Container,
  couldStart,
  inspect,
  inspectOwn,
  isOwn,
  isRunning,
  removeContainer,
  removeOwn,
} from "./docker.ts";
import { drain } from "./drain.ts";
import { addHosts, ownHost } from "./hosts.ts";
import * as k3s from "./kubernetes.ts";
import { makeNode } from "./make.ts";
import { markBoot, markMade, readMarks } from "./marks.ts";
import { subnetOf } from "./network.ts";

/**
 * Creates an agent, which joins the existing servers. After a failure its remains are removed; a complete agent that Pulumi
 * does not know is adopted with its data.
 */
export async function addAgent(cluster: Cluster, input: AgentInput): Promise<void> {
  const { name, index, config, identity, generation } = input;
  const there = await inspectOwn(cluster.owner, name);
  if (there && couldStart(there) && (await readMarks(there)).isMade) {
    adopt(cluster, there, identity);
    return await startAgent(cluster, input);
  }
  await removeOwn(cluster.owner, name);
  const server = await k3s.servingServer(cluster);
  await k3s.forget(server, name);
  const address = agentAddress(await subnetOf(cluster), index);
  const marks = { "k3s-lab.generation": generation, "k3s-lab.identity": identity };
  const labels = { ...labelsOf(cluster), ...marks };
  const made = await makeNode({ name, role: "agent", address, config, ports: [], server, labels });
  try {
    await k3s.untilContainerd(name);
    await k3s.untilKnown(server, name);
  } catch (error) {
    await removeContainer(made.id);
    throw error;
  }
  await markMade(name);
  await finishStart(cluster, server, input);
}

/** Starts an existing agent. */
export async function startAgent(cluster: Cluster, input: AgentInput): Promise<void> {
  const { name } = input;
  const found = await inspectOwn(cluster.owner, name);
  if (!found)
    throw new LabError(
      `The agent ${name} does not exist. Run \`scripts/lab up ${cluster.owner.stack}\` again.`,
    );
  await k3s.startOrUnpause(found);
  await k3s.untilContainerd(name);
  // K3s registers its node only when it starts.
  const server = await k3s.servingServer(cluster);
  if ((await k3s.unknownNodes([server], [name], !isRunning(found))).length) {
    await k3s.restart(found);
    await k3s.untilContainerd(name);
    await k3s.untilKnown(server, name);
  }
  await finishStart(cluster, server, input);
}

async function finishStart(
  cluster: Cluster,
  server: Container,
  { name, hosts, boot }: AgentInput,
): Promise<void> {
  await addHosts(name, [await ownHost(cluster), ...hosts]);
  await k3s.untilReadyNode(server, name);
  await markBoot(name, boot);
}

/** Drains a running agent, then removes it and deletes its node from the cluster. */
export async function removeAgent(cluster: Cluster, name: string): Promise<void> {
  const found = await inspect(name);
  const server = await k3s.servingServer(cluster).catch((error: Error) => {
    console.log(`the cluster could not be told that ${name} is leaving: ${error.message}`);
    return undefined;
  });
  if (found && isOwn(cluster.owner, found)) {
    // If no server runs, nothing could evict the pods.
    if (server && isRunning(found)) await drain(server, name);
    await removeContainer(found.id);
  }
  if (server) await k3s.forget(server, name);
}
