import { LabError } from "../lib/errors.ts";
import { type AgentInput, type Cluster, labelArgs, labelsOf, type ServersInput } from "./cluster.ts";
import {
  type Container,
  containersOf,
  couldStart,
  docker,
  inspect,
  isOwn,
  namesOf,
  nameTaken,
  type Owner,
  removeContainer,
  removeNamed,
  removeOwn,
} from "./docker.ts";
import { drain } from "./drain.ts";
import { addHosts, nameHosts, ownHost } from "./hosts.ts";
import * as k3s from "./kubernetes.ts";
import { makeBalancer, makeNode, pull, reloadLoadBalancer, runK3d, withLabels } from "./make.ts";
import { aloneLabel, markBoot, markMade, readMarks, wholeServers } from "./marks.ts";
import * as network from "./network.ts";
import { agentAddress } from "./node.ts";
import { refuseTakenNames, refuseWithoutQuorum } from "./refusals.ts";
import { registryVolume, removeRegistry } from "./registry.ts";

/** Makes the cluster with its servers, by k3d. What an interrupted run left of it goes first; what is whole is adopted. */
export async function create(cluster: Cluster, input: ServersInput): Promise<void> {
  const { config, image, generation, boot } = input;
  await refuseTakenNames(
    cluster,
    input.servers.map(({ name }) => name),
  );
  // Pulumi knows of no cluster, and a whole one is there: its state was lost, the cluster was not.
  const made = wholeServers(await observeServers(cluster));
  for (const { one } of made) adopt(cluster, one, input.labels["k3s-lab.identity"]);
  if (made.length) return await start(cluster, input);
  await removeCluster(cluster.owner);
  await pull(image);
  const range = await network.makeNetwork(cluster, input.subnet);
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
  await network.pinAll(cluster, range);
  const servers = (await containersOf(cluster.owner)).filter(({ role }) => role === "server");
  await Promise.all(servers.map(k3s.untilReady));
  for (const server of servers) await k3s.untilKnown(server, server.name);
  await Promise.all(servers.map((one) => markMade(one.name)));
  await finishStart(cluster, input, boot);
}

/** The servers of a stack, whatever they are called, as far as they could be started. */
async function observeServers({ owner }: Cluster) {
  const servers = (await containersOf(owner)).filter((one) => one.role === "server" && couldStart(one));
  return await Promise.all(servers.map(async (one) => ({ one, ...(await readMarks(one)) })));
}

/** Takes over what is there and Pulumi does not know of. @throws LabError where it is not what the file asks for. */
function adopt({ owner }: Cluster, found: Container, identity: string | undefined): void {
  if (found.labels["k3s-lab.identity"] === identity) return;
  throw new LabError(
    `Docker has ${found.name} of this stack, which Pulumi's state does not know, and it was made from another k3d config file than today's. Nothing was changed. Put the file back as it was, or give up what is there: scripts/lab down ${owner.stack}`,
  );
}

/**
 * Brings everything of a cluster that is there back: what was stopped is started, what was paused goes on, a lost server
 * of several is made again and joins the others. The others and their data stay as they are.
 */
export async function start(cluster: Cluster, input: ServersInput): Promise<void> {
  const whole = wholeServers(await observeServers(cluster)).map(({ one }) => one);
  const here = whole.filter((one) => input.servers.some(({ name }) => name === one.name));
  const lost = input.servers.filter(({ name }) => !here.some((one) => one.name === name));
  const names = () => lost.map(({ name }) => name);
  const running = here.filter((one) => one.status === "running");
  const answers = lost.length > 0 && (await k3s.knownNodes(running)) !== undefined;
  refuseWithoutQuorum(cluster, names(), input.servers.length, answers);
  const others = (await containersOf(cluster.owner)).filter(
    (one) => one.role !== "server" && one.role !== "agent" && couldStart(one),
  );
  await Promise.all([...here, ...others].map(k3s.wake));
  await k3s.servingServer(cluster, k3s.readyWithin);
  // One of several whose node was deleted is no member of etcd any more, and may begin a cluster of its own: it is lost.
  const unknown = await k3s.unknownNodes(
    here,
    here.map(({ name }) => name),
    here.length > running.length,
  );
  if (input.servers.length > 1) lost.push(...input.servers.filter(({ name }) => unknown.includes(name)));
  else await Promise.all(here.filter((one) => unknown.includes(one.name)).map(k3s.restart));
  const servers = here.filter((one) => !names().includes(one.name));
  await Promise.all(servers.map(k3s.untilReady));
  for (const server of lost) await repairServer(cluster, server, servers, input);
  const { balancer } = input;
  if (balancer && servers[0] && !others.some((one) => one.name === balancer.name))
    await makeBalancer(cluster, balancer, servers[0]);
  await finishStart(cluster, input, input.boot);
}

/** Removes the cluster, and what an interrupted run left of it; the registry and its images stay. */
export async function removeCluster(owner: Owner): Promise<void> {
  const networks = await namesOf("network", owner);
  await network.refuseOthersContainers(owner, networks);
  const containers = (await containersOf(owner)).filter((one) => one.role !== "registry");
  await Promise.all(containers.map(({ id }) => removeContainer(id)));
  for (const one of networks) await network.removeNetwork(one);
  for (const volume of await namesOf("volume", owner))
    if (volume !== registryVolume(owner)) await removeNamed("volume", volume);
}

/** Removes everything that carries this stack's labels. */
export async function removeAll(owner: Owner): Promise<void> {
  await removeCluster(owner);
  await removeRegistry(owner);
}

/**
 * Makes an agent, which joins the servers that are there. What is left of it after a fault is removed again; one that is
 * whole, and that Pulumi does not know of, is adopted with its data.
 */
export async function addAgent(cluster: Cluster, input: AgentInput): Promise<void> {
  const { name, index, config, identity, generation, boot } = input;
  const there = await inspect(name);
  if (there && isOwn(cluster.owner, there) && couldStart(there) && (await readMarks(there)).isMade) {
    adopt(cluster, there, identity);
    return await startAgent(cluster, input);
  }
  await removeOwn(cluster.owner, name);
  const server = await k3s.servingServer(cluster);
  await k3s.forget(server, name);
  const address = agentAddress(await network.subnetOf(cluster), index);
  const labels = {
    ...labelsOf(cluster),
    ...{ "k3s-lab.generation": generation, "k3s-lab.identity": identity },
  };
  const made = await makeNode({ name, role: "agent", address, config, ports: [], server, labels });
  try {
    await k3s.untilContainerd(name);
    await k3s.untilKnown(server, name);
  } catch (error) {
    await removeContainer(made.id);
    throw error;
  }
  await markMade(name);
  await addHosts(name, [await ownHost(cluster), ...input.hosts]);
  await markBoot(name, boot);
}

/** Starts an agent that is there. */
export async function startAgent(cluster: Cluster, { name, hosts, boot }: AgentInput): Promise<void> {
  const found = await inspect(name);
  if (found && !isOwn(cluster.owner, found)) throw nameTaken(name);
  if (!found)
    throw new LabError(
      `The agent ${name} is not there. Run \`scripts/lab up ${cluster.owner.stack}\` again.`,
    );
  await k3s.wake(found);
  await k3s.untilContainerd(name);
  // K3s makes its node at its start, and not again.
  const server = await k3s.servingServer(cluster);
  if ((await k3s.unknownNodes([server], [name], found.status !== "running")).length) {
    await k3s.restart(found);
    await k3s.untilContainerd(name);
    await k3s.untilKnown(server, name);
  }
  await addHosts(name, [await ownHost(cluster), ...hosts]);
  await markBoot(name, boot);
}

/** Moves an agent's pods while it still runs, then removes it and has the cluster forget it. */
export async function removeAgent(cluster: Cluster, name: string): Promise<void> {
  const found = await inspect(name);
  const server = await k3s.servingServer(cluster).catch((error: Error) => {
    console.log(`the cluster is not told that ${name} leaves: ${error.message}`);
    return undefined;
  });
  if (found && isOwn(cluster.owner, found)) {
    // Where nothing runs, nothing could end the pods.
    if (server && found.status === "running") await drain(server, name);
    await removeContainer(found.id);
  }
  if (server) await k3s.forget(server, name);
}

/** K3s's own kubeconfig, from any server that runs. */
export async function kubeconfig(cluster: Cluster): Promise<string> {
  return await docker(["exec", (await k3s.servingServer(cluster)).id, "cat", "/output/kubeconfig.yaml"]);
}

/** What the cluster says of itself: the UID of its namespace kube-system. */
export async function clusterId(cluster: Cluster): Promise<string> {
  const server = await k3s.servingServer(cluster);
  const ask = ["get", "namespace", "kube-system", "--output=jsonpath={.metadata.uid}"];
  let uid = "";
  await k3s.until(60, `${server.name} does not say the UID of kube-system`, async () => {
    const { failed, stdout } = await k3s.kubectl(server, ask);
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
  if (server === undefined) throw new Error("unreachable: some server answers");
  console.log(`${name} is gone: creating it again; it joins ${servers.map((one) => one.name).join(", ")}`);
  await removeOwn(cluster.owner, name);
  await k3s.leaveEtcd(server, name);
  await k3s.forget(server, name);
  const address = await network.freeAddressOf(cluster, name);
  const labels = {
    ...labelsOf(cluster),
    ...ofCluster,
    "k3s-lab.generation": generation,
    [aloneLabel]: boot,
  };
  const made = await makeNode({ name, role: "server", address, config, ports, server, labels });
  await k3s.untilReady(made);
  await k3s.untilKnown(server, name);
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
