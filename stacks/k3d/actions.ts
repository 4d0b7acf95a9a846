import { LabError } from "../../scripts/errors.ts";
import {
  type AgentInput,
  type Cluster,
  isOwn,
  isRegistry,
  isServer,
  labelArgs,
  labelsOf,
  type ServersInput,
} from "./cluster.ts";
import {
  type Container,
  containersOf,
  docker,
  inspect,
  nameOf,
  namesOf,
  type Owner,
  removeContainer,
  removeNamed,
  roleOf,
} from "./docker.ts";
import { drain } from "./drain.ts";
import { addHosts, nameHosts, ownHost } from "./hosts.ts";
import {
  forget,
  kubectl,
  leaveEtcd,
  restart,
  servingServer,
  unknownNodes,
  until,
  untilContainerd,
  untilKnown,
  untilReady,
  wake,
} from "./kubernetes.ts";
import { makeBalancer, makeNode, pull, reloadLoadBalancer, runK3d, withLabels } from "./make.ts";
import { markBoot, markMade, readMarks } from "./marks.ts";
import { freeAddressOf, makeNetwork, pinAll, removeNetwork, subnetOf } from "./network.ts";
import { agentAddress } from "./node.ts";
import { refuseStrangers, refuseWithoutQuorum, taken } from "./refusals.ts";
import { registryVolume } from "./registry.ts";

/** Makes the cluster with its servers, by k3d. What an interrupted run left of it goes first; what is whole is adopted. */
export async function create(cluster: Cluster, input: ServersInput): Promise<void> {
  const { config, image, generation, boot } = input;
  await refuseStrangers(cluster);
  const before = (await containersOf(cluster.owner)).filter(isServer);
  // Pulumi knows of no cluster, and a whole one is there: its state was lost, the cluster was not.
  const made = await Promise.all(before.map(readMarks));
  if (made.some(({ isMade }) => isMade)) return await start(cluster, input);
  await removeCluster(cluster.owner);
  await pull(image);
  const network = await makeNetwork(cluster, input.subnet);
  await docker([
    ...["volume", "create", ...labelArgs({ ...labelsOf(cluster), app: "k3d", "k3d.cluster": cluster.name })],
    `k3d-${cluster.name}-images`,
  ]);
  try {
    await runK3d(
      cluster,
      withLabels(config, { ...labelsOf(cluster), ...input.labels, "k3s-lab.generation": generation }),
    );
  } catch (error) {
    // Nothing of it has served anybody. Where Docker fails at that too, the next run removes it.
    await removeCluster(cluster.owner).catch((cause: Error) => console.log(cause.message));
    throw error;
  }
  await pinAll(cluster, network);
  const servers = (await containersOf(cluster.owner)).filter(isServer);
  await Promise.all(servers.map(untilReady));
  for (const server of servers) await untilKnown(server, nameOf(server));
  for (const server of servers) await markMade(nameOf(server));
  await finishStart(cluster, input, boot);
}

/**
 * Brings everything of a cluster that is there back: what was stopped is started, what was paused goes on, a lost server
 * of several is made again and joins the others. The others and their data stay as they are.
 */
export async function start(cluster: Cluster, input: ServersInput): Promise<void> {
  const containers = await containersOf(cluster.owner);
  const found = new Map(containers.map((one) => [nameOf(one), one]));
  const isLost = (name: string) => /^(dead|removing)$/.test(found.get(name)?.State.Status ?? "dead");
  const lost = input.servers.filter(({ name }) => isLost(name));
  refuseWithoutQuorum(
    cluster,
    lost.map(({ name }) => name),
    input.servers.length,
  );
  const running = containers.filter((one) => !isLost(nameOf(one)) && roleOf(one) !== "agent");
  await Promise.all(running.map(wake));
  const all = running.filter(isServer);
  await Promise.all(all.map(untilReady));
  // A server whose node was deleted is no member of etcd any more, and would begin a cluster of its own: it is lost too.
  const unknown = await unknownNodes(all[0], all.map(nameOf));
  if (input.servers.length === 1)
    await Promise.all(all.filter((one) => unknown.includes(nameOf(one))).map(restart));
  else lost.push(...input.servers.filter(({ name }) => unknown.includes(name)));
  refuseWithoutQuorum(
    cluster,
    lost.map(({ name }) => name),
    input.servers.length,
  );
  const servers = all.filter((one) => !lost.some(({ name }) => name === nameOf(one)));
  for (const server of lost) await repairServer(cluster, server, servers, input);
  const { balancer } = input;
  if (balancer && servers[0] && isLost(balancer.name)) await makeBalancer(cluster, balancer, servers[0]);
  await finishStart(cluster, input, input.boot);
}

/** Removes the cluster, and what an interrupted run left of it; the registry and its images stay. */
export async function removeCluster(owner: Owner): Promise<void> {
  const containers = await containersOf(owner);
  const registries = containers.filter(isRegistry);
  await Promise.all(containers.filter((one) => !isRegistry(one)).map(({ Id }) => removeContainer(Id)));
  for (const network of await namesOf("network", owner)) await removeNetwork(network, registries.map(nameOf));
  for (const volume of await namesOf("volume", owner))
    if (volume !== registryVolume(owner)) await removeNamed("volume", volume);
}

/** Removes everything that carries this stack's labels. */
export async function removeAll(owner: Owner): Promise<void> {
  const containers = await containersOf(owner);
  await Promise.all(containers.map(({ Id }) => removeContainer(Id)));
  for (const network of await namesOf("network", owner)) await removeNetwork(network, []);
  for (const volume of await namesOf("volume", owner)) await removeNamed("volume", volume);
}

/** Makes an agent, which joins the servers that are there. What is left of it after a fault is removed again. */
export async function addAgent(cluster: Cluster, input: AgentInput): Promise<void> {
  const { name, index, config, generation, boot } = input;
  const there = await inspect(name);
  if (there) {
    if (!isOwn(cluster, there)) throw taken(cluster, `container ${name}`);
    await removeContainer(there.Id);
  }
  const server = await servingServer(cluster);
  await forget(server, name);
  const address = agentAddress(await subnetOf(cluster), index);
  const labels = { ...labelsOf(cluster), "k3s-lab.generation": generation };
  await makeNode({ name, role: "agent", address, config, ports: [], server, labels });
  try {
    await untilContainerd(name);
    await untilKnown(server, name);
  } catch (error) {
    await removeContainer(name);
    throw error;
  }
  await addHosts(name, [await ownHost(cluster), ...input.hosts]);
  await markBoot(name, boot);
}

/** Starts an agent that is there. */
export async function startAgent(cluster: Cluster, { name, hosts, boot }: AgentInput): Promise<void> {
  const found = await inspect(name);
  if (!found || !isOwn(cluster, found))
    throw new LabError(
      `The agent ${name} is not there. Run \`scripts/lab up ${cluster.owner.stack}\` again.`,
    );
  await wake(found);
  await untilContainerd(name);
  // K3s makes its node at its start, and not again.
  const server = await servingServer(cluster);
  if ((await unknownNodes(server, [name])).length) {
    await restart(found);
    await untilContainerd(name);
    await untilKnown(server, name);
  }
  await addHosts(name, [await ownHost(cluster), ...hosts]);
  await markBoot(name, boot);
}

/** Moves an agent's pods while it still runs, then removes it and has the cluster forget it. */
export async function removeAgent(cluster: Cluster, name: string): Promise<void> {
  const found = await inspect(name);
  const server = await servingServer(cluster).catch((error: Error) => {
    console.log(`the cluster is not told that ${name} leaves: ${error.message}`);
    return undefined;
  });
  if (server && found) await drain(server, name);
  if (found && isOwn(cluster, found)) await removeContainer(found.Id);
  if (server) await forget(server, name);
}

/** K3s's own kubeconfig, from any server that runs. */
export async function kubeconfig(cluster: Cluster): Promise<string> {
  return await docker(["exec", nameOf(await servingServer(cluster)), "cat", "/output/kubeconfig.yaml"]);
}

/** What the cluster says of itself: the UID of its namespace kube-system. */
export async function clusterId(cluster: Cluster): Promise<string> {
  const server = await servingServer(cluster);
  const ask = ["get", "namespace", "kube-system", "--output=jsonpath={.metadata.uid}"];
  let uid = "";
  await until(60, `${nameOf(server)} does not say the UID of kube-system`, async () => {
    const { failed, stdout } = await kubectl(server, ask);
    uid = failed ? "" : stdout.trim();
    return uid !== "";
  });
  return uid;
}

/** Makes a server again that is gone, beside those that are there, and waits until it has joined them. */
async function repairServer(
  cluster: Cluster,
  { name, config, ports }: ServersInput["servers"][number],
  servers: readonly Container[],
  { boot, generation, labels: ofCluster }: ServersInput,
): Promise<void> {
  const [server] = servers;
  if (server === undefined) throw new Error("unreachable: a majority of the servers is there");
  console.log(`${name} is gone: it is made again and joins ${servers.map(nameOf).join(", ")}`);
  await removeContainer(name);
  await leaveEtcd(server, name);
  await forget(server, name);
  const address = await freeAddressOf(cluster, name);
  const labels = {
    ...labelsOf(cluster),
    ...ofCluster,
    "k3s-lab.generation": generation,
    "k3s-lab.made": boot,
  };
  const made = await makeNode({ name, role: "server", address, config, ports, server, labels });
  await untilReady(made);
  await untilKnown(server, name);
  await markMade(name);
  await reloadLoadBalancer(cluster);
}

/** What is to be done after every start of the servers, and the mark that it was. */
async function finishStart(cluster: Cluster, { servers, hosts }: ServersInput, boot: string): Promise<void> {
  const all = [await ownHost(cluster), ...hosts];
  for (const { name } of servers) await addHosts(name, all);
  const [first] = servers;
  if (first) await nameHosts(first.name, all);
  for (const { name } of servers) await markBoot(name, boot);
}
