import { LabError } from "../lib/errors.ts";
import { type Cluster, labelsOf, networkOf, pairs, type ServersInput } from "./cluster.ts";
import {
  type Container,
  containersOf,
  couldStart,
  docker,
  inspectOwn,
  isRunning,
  namesOf,
  type Owner,
  removeContainer,
  removeNamed,
  removeOwn,
  repeat,
} from "./docker.ts";
import { addHosts, nameHosts, ownHost } from "./hosts.ts";
import * as k3s from "./kubernetes.ts";
import {
  hideRegistries,
  makeBalancer,
  makeNode,
  pull,
  reloadLoadBalancer,
  runK3d,
  withLabels,
} from "./make.ts";
import { aloneLabel, completeServers, markBoot, markedNodes, markMade } from "./marks.ts";
import * as network from "./network.ts";
import { refuseTakenNames, refuseWithoutQuorum } from "./refusals.ts";
import { registryVolume, removeRegistry } from "./registry.ts";

const namesIn = (all: readonly { readonly name: string }[]): string[] => all.map(({ name }) => name);

async function madeServers({ owner }: Cluster): Promise<Container[]> {
  const nodes = await markedNodes(await containersOf(owner));
  return completeServers(nodes.filter(({ role }) => role === "server"));
}

/** Creates the cluster with its servers by k3d. First removes what an interrupted run left of it; a complete one is adopted. */
export async function create(cluster: Cluster, input: ServersInput): Promise<void> {
  await refuseTakenNames(cluster, namesIn(input.servers));
  // A complete cluster that Pulumi does not know: its state was lost, the cluster was not.
  const made = await madeServers(cluster);
  for (const one of made) adopt(cluster, one, input.labels["k3s-lab.identity"]);
  if (made.length) return await start(cluster, input);
  await removeCluster(cluster.owner);
  await pull(input.image);
  const range = await network.makeNetwork(cluster, input.subnet);
  const own = { ...labelsOf(cluster), app: "k3d", "k3d.cluster": cluster.name };
  await docker(["volume", "create", ...repeat("--label", pairs(own)), `${networkOf(cluster)}-images`]);
  const labels = { ...labelsOf(cluster), ...input.labels, "k3s-lab.generation": input.generation };
  try {
    await runK3d(cluster, withLabels(input.config, pairs(labels)));
  } catch (error) {
    // It has not served anybody yet. If Docker fails at the removal too, the next run repeats it.
    await removeCluster(cluster.owner).catch((cause: Error) => console.log(cause.message));
    throw error;
  }
  await network.pinAll(cluster, range);
  const servers = (await containersOf(cluster.owner)).filter(({ role }) => role === "server");
  await Promise.all(servers.map(k3s.untilReady));
  for (const server of servers) await k3s.untilKnown(server, server.name);
  await Promise.all(namesIn(servers).map(markMade));
  await finishStart(cluster, input);
}

/** Adopts what exists and Pulumi does not know. @throws LabError if it differs from what the file asks for. */
export function adopt({ owner }: Cluster, found: Container, identity: string | undefined): void {
  if (found.labels["k3s-lab.identity"] === identity) return;
  throw new LabError(
    `Docker has ${found.name} of this stack, which is missing from Pulumi's state and was created from a different k3d config file. Nothing was changed. Restore that file, or delete what exists: scripts/lab down ${owner.stack}`,
  );
}

/**
 * Repairs an existing cluster: starts what was stopped, unpauses what was paused, and recreates a lost server of several,
 * which then joins the others. The others and their data stay as they are.
 */
export async function start(cluster: Cluster, input: ServersInput): Promise<void> {
  const { servers: all, balancer } = input;
  const here = (await madeServers(cluster)).filter(({ name }) => namesIn(all).includes(name));
  const running = here.filter(isRunning);
  const lost = namesIn(all).filter((name) => !namesIn(here).includes(name));
  const answers = lost.length > 0 && (await k3s.knownNodes(running)) !== undefined;
  refuseWithoutQuorum(cluster, lost, all.length, answers);
  const others = (await containersOf(cluster.owner)).filter(
    (one) => one.role !== "server" && one.role !== "agent" && couldStart(one),
  );
  await Promise.all([...here, ...others].map(k3s.startOrUnpause));
  await k3s.servingServer(cluster, k3s.readyWithin);
  const unknown = await k3s.unknownNodes(here, namesIn(here), here.length > running.length);
  // A server whose node was deleted is no longer an etcd member, and may start a cluster of its own: it counts as lost.
  if (all.length > 1) lost.push(...unknown);
  else await Promise.all(here.filter(({ name }) => unknown.includes(name)).map(k3s.restart));
  const servers = here.filter(({ name }) => !lost.includes(name));
  await Promise.all(servers.map(k3s.untilReady));
  for (const server of all)
    if (lost.includes(server.name)) await repairServer(cluster, server, servers, input);
  if (balancer && servers[0] && !namesIn(others).includes(balancer.name))
    await makeBalancer(cluster, balancer, servers[0]);
  await finishStart(cluster, input);
}

/** Recreates a lost server beside the others, and waits until it has joined them. */
async function repairServer(
  cluster: Cluster,
  { name, config, ports }: ServersInput["servers"][number],
  servers: readonly Container[],
  { boot, generation, labels: ofCluster }: ServersInput,
): Promise<void> {
  const [server] = servers;
  if (server === undefined) throw new Error("unreachable: some server answers");
  await refuseLossOfVolumes(cluster, name);
  console.log(`${name} is missing: recreating it; it joins ${namesIn(servers).join(", ")}`);
  await removeOwn(cluster.owner, name);
  await k3s.leaveEtcd(server, name, await network.freeAddresses(cluster));
  await k3s.forget(server, name);
  const address = await network.freeAddressOf(cluster, name);
  const marks = { "k3s-lab.generation": generation, [aloneLabel]: boot };
  const labels = { ...labelsOf(cluster), ...ofCluster, ...marks };
  const made = await makeNode({ name, role: "server", address, config, ports, server, labels });
  await k3s.untilReady(made);
  await k3s.untilKnown(server, name);
  await markMade(name);
  await reloadLoadBalancer(cluster);
}

const storage = "/var/lib/rancher/k3s/storage";

/**
 * Refuses to recreate a server that still runs, as after its node was deleted, and holds local volumes of pods.
 * @throws LabError that says how to save them.
 */
async function refuseLossOfVolumes({ owner }: Cluster, name: string): Promise<void> {
  const found = await inspectOwn(owner, name);
  if (!found || !isRunning(found)) return;
  const listed = await docker(["exec", found.id, "sh", "-c", `[ ! -e ${storage} ] || ls -A ${storage}`]);
  if (listed === "") return;
  throw new LabError(
    `${name} is no longer a node of its cluster and must be recreated to join it. It holds local volumes of pods, which would be lost: ${listed.split("\n").join(", ")}. Nothing was removed. Save what you need of them (docker cp ${name}:${storage} .), remove it (docker rm --force --volumes ${name}), then run the same command again.`,
  );
}

/** What must be done after every start of the servers, and the mark that it was done. */
async function finishStart(cluster: Cluster, { servers, hosts, boot }: ServersInput): Promise<void> {
  const all = [await ownHost(cluster), ...hosts];
  const names = namesIn(servers);
  for (const name of names) await addHosts(name, all);
  await Promise.all(names.map(hideRegistries));
  for (const name of names.slice(0, 1)) await nameHosts(name, all);
  for (const name of names) await markBoot(name, boot);
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

/** K3s's kubeconfig, from any running server. */
export async function kubeconfig(cluster: Cluster): Promise<string> {
  return await docker(["exec", (await k3s.servingServer(cluster)).id, "cat", "/output/kubeconfig.yaml"]);
}

/** The cluster's identity: the UID of its namespace kube-system. */
export async function clusterId(cluster: Cluster): Promise<string> {
  const server = await k3s.servingServer(cluster);
  const ask = ["get", "namespace", "kube-system", "--output=jsonpath={.metadata.uid}"];
  const find = async () => {
    const { failed, stdout } = await k3s.kubectl(server, ask);
    return !failed && stdout.trim();
  };
  return await k3s.until(60, `${server.name} did not return the UID of kube-system`, find, server.name);
}
