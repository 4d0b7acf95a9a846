import { mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { execa } from "execa";
import pWaitFor, { TimeoutError } from "p-wait-for";
import { stringify } from "yaml";
import { LabError } from "../../scripts/errors.ts";
import type { Balancer, NodeConfig } from "../k3d-file.ts";
import {
  type Container,
  containersOf,
  copyOut,
  docker,
  dockerError,
  inspect,
  isAbsent,
  labelOf,
  nameOf,
  namesOf,
  type Owner,
  ownLabels,
  removeContainer,
  removeNamed,
  roleOf,
  strangers,
  tryDocker,
} from "./docker.ts";
import { markBoot, markMade, readMarks } from "./marks.ts";
import { agentAddress, createNode, freeAddress, gatewayOf, type JoiningNode } from "./node.ts";

/** The cluster that an action is about. */
export interface Cluster {
  readonly owner: Owner;
  /** Its name in k3d. */
  readonly name: string;
  /** The checkout, for people to read in the labels. */
  readonly checkout: string;
}

/** What `create` and `start` are told. */
export interface ServersInput {
  /** What k3d makes. */
  readonly config: { readonly options?: object; readonly [key: string]: unknown };
  readonly image: string;
  readonly subnet: string;
  /** The servers in their order; a lost one is made from this. */
  readonly servers: readonly {
    readonly name: string;
    readonly config: NodeConfig;
    readonly ports: readonly string[];
  }[];
  /** k3d's load balancer; one that is lost is made from this. Default: the cluster has none. */
  readonly balancer?: Balancer | undefined;
  /** Lines for the nodes' /etc/hosts and for CoreDNS: an address and its names. */
  readonly hosts: readonly string[];
  /** More labels of the servers: what the cluster was made from. */
  readonly labels: Readonly<Record<string, string>>;
  /** Names the making of the cluster, and this start of it. */
  readonly generation: string;
  readonly boot: string;
}

/** What `add-agent` and `start-agent` are told. */
export interface AgentInput {
  readonly name: string;
  readonly index: number;
  readonly config: NodeConfig;
  readonly hosts: readonly string[];
  readonly generation: string;
  readonly boot: string;
}

/** Seconds that K3s gets to come up. Where the processor is emulated a start takes a minute and more. */
const readyWithin = 300;

const networkOf = ({ name }: Cluster): string => `k3d-${name}`;
const labelsOf = ({ owner, checkout }: Cluster): Record<string, string> => ownLabels(owner, checkout);
const labelArgs = (labels: Readonly<Record<string, string>>): string[] =>
  Object.entries(labels).flatMap(([key, value]) => ["--label", `${key}=${value}`]);

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

/**
 * Refuses to go on where so many servers are lost that the rest cannot decide anything.
 * @throws LabError with the documented way back.
 */
export function refuseWithoutQuorum(
  cluster: Pick<Cluster, "name">,
  lost: readonly string[],
  all: number,
): void {
  if (lost.length === 0 || all - lost.length > all / 2) return;
  throw new LabError(
    `The cluster ${cluster.name} has lost ${lost.join(" and ")} of its ${all} servers: the rest is no majority of etcd's members and cannot decide alone. Its data is still in ${all - lost.length === 1 ? "the server" : "the servers"} that is left, and nothing was changed. Save it by \`k3s server --cluster-reset\` there (https://docs.k3s.io/cli/etcd-snapshot), or give it up: lab down, then lab up, make a new, empty cluster.`,
  );
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
  if (server && found) {
    const drain = ["drain", name, "--ignore-daemonsets", "--delete-emptydir-data", "--timeout=60s"];
    if ((await kubectl(server, drain, 90)).failed)
      console.log(`${name} is not drained: its pods end with it`);
  }
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

/** What a registry is made from. */
export interface RegistryInput {
  readonly name: string;
  readonly image: string;
  readonly address: string;
  readonly port: string;
  readonly volumes: readonly string[];
  /** Lines of variables; may hold the password to another registry. */
  readonly env: readonly string[];
  readonly boot: string;
}

const registryVolume = ({ stack }: Owner): string => `k3d-${stack}-registry`;

/** Makes the container of a registry, or makes it again: its images are in a volume and stay. */
export async function makeRegistry(cluster: Cluster, input: RegistryInput): Promise<void> {
  const { name, image, address, port, volumes, env, boot } = input;
  const there = await inspect(name);
  if (there && !isOwn(cluster, there)) throw taken(cluster, `container ${name}`);
  const labels = labelsOf(cluster);
  const old = (await containersOf(cluster.owner)).filter(isRegistry);
  await pull(image);
  for (const { Id } of old) await removeContainer(Id);
  const own = registryVolume(cluster.owner);
  if (volumes.length === 0) await docker(["volume", "create", ...labelArgs(labels), own]);
  const marks = {
    ...labels,
    "k3s-lab.boot": boot,
    ...{ app: "k3d", "k3d.role": "registry", "k3d.registry.host": address, "k3d.registry.hostIP": address },
    ...{ "k3s.registry.port.external": port, "k3s.registry.port.internal": "5000" },
  };
  await withFiles({ env }, async (files) => {
    await docker([
      ...["create", "--name", name, "--hostname", name, "--restart", "unless-stopped", ...labelArgs(marks)],
      ...["--env-file", files.env, "--publish", `${address}:${port}:5000`],
      ...(volumes.length ? volumes : [`${own}:/var/lib/registry`]).flatMap((one) => ["--volume", one]),
      image,
    ]);
  });
  if ((await tryDocker(["network", "inspect", networkOf(cluster)])).failed === false) {
    await docker([
      "network",
      "connect",
      "--ip",
      await freeAddressOf(cluster, name),
      networkOf(cluster),
      name,
    ]);
  }
  await docker(["start", name]);
}

/** Removes the registry with its images. */
export async function removeRegistry(owner: Owner): Promise<void> {
  for (const { Id } of (await containersOf(owner)).filter(isRegistry)) await removeContainer(Id);
  for (const volume of await namesOf("volume", owner))
    if (volume === registryVolume(owner)) await removeNamed("volume", volume);
}

const isServer = (container: Container): boolean => roleOf(container) === "server";
const isRegistry = (container: Container): boolean => roleOf(container) === "registry";
const isOwn = ({ owner }: Cluster, container: Container): boolean =>
  labelOf(container, "k3s-lab.id") === owner.id && labelOf(container, "k3s-lab.stack") === owner.stack;

const taken = ({ name }: Pick<Cluster, "name">, what: string): LabError =>
  new LabError(
    `A cluster ${name} is there already, made by somebody else (${what}): give yours another metadata.name, or remove that one with: k3d cluster delete ${name}`,
    { exitCode: 2 },
  );

/** @throws LabError (exit code 2) where something that is not this stack's has a name that the cluster would take. */
export async function refuseStrangers(
  { owner, name }: Pick<Cluster, "owner" | "name">,
  others: readonly string[] = [],
): Promise<void> {
  const found = await strangers(owner, name, others);
  if (found.length) throw taken({ name }, found.map((one) => `${one.kind} ${one.name}`).join(", "));
}

async function pull(image: string): Promise<void> {
  const found = await tryDocker(["image", "inspect", "--format", "{{.Id}}", image]);
  if (!found.failed) return;
  const result = await tryDocker(["pull", "--quiet", image], { within: 900 });
  if (result.failed)
    throw new LabError(
      `The image ${image} is neither here nor can it be pulled: ${result.stderr.trim()}. Run \`scripts/lab up\`, which builds one, or name another image.`,
    );
}

/**
 * Makes the cluster's network with the lab's labels, which k3d cannot do. Docker gives fixed addresses only in a network
 * whose range was said: without one of the file's, it is the one that Docker itself finds free.
 * @returns its range.
 */
async function makeNetwork(cluster: Cluster, wanted: string): Promise<string> {
  const make = (...range: string[]) =>
    docker([
      ...["network", "create", "--driver", "bridge", ...range],
      ...["--opt", "com.docker.network.bridge.enable_ip_masquerade=true"],
      ...labelArgs({ ...labelsOf(cluster), app: "k3d" }),
      networkOf(cluster),
    ]);
  let range = wanted;
  if (wanted === "auto") {
    await make();
    range = await subnetOf(cluster);
    await docker(["network", "rm", networkOf(cluster)]);
  }
  await make("--subnet", range, "--gateway", gatewayOf(range));
  return range;
}

const subnetOf = (cluster: Cluster): Promise<string> =>
  docker(["network", "inspect", "--format", "{{(index .IPAM.Config 0).Subnet}}", networkOf(cluster)]);

/** Removes a network of the lab's own with whatever is still in it: k3d's helper, a registry that others use too. */
async function removeNetwork(network: string, registries: readonly string[]): Promise<void> {
  const name = await tryDocker(["network", "inspect", "--format", "{{.Name}}", network]);
  if (name.failed) {
    if (isAbsent(name)) return;
    throw dockerError(name, `docker network inspect ${network}`);
  }
  // k3d runs a helper beside a cluster for moments, and gives it no labels; an interrupted k3d leaves it.
  const tools = await inspect(`${name.stdout.trim()}-tools`);
  if (tools && name.stdout.trim() in tools.NetworkSettings.Networks) await removeContainer(tools.Id);
  const attached = await docker(["ps", "--all", "--format", "{{.Names}}", "--filter", `network=${network}`]);
  for (const one of attached.split("\n").filter(Boolean)) {
    const container = await inspect(one);
    if (container && (isRegistry(container) || registries.includes(one)))
      await docker(["network", "disconnect", "--force", network, one]);
  }
  await removeNamed("network", network);
}

/** k3d's config with labels for every container that it makes. */
export function withLabels(config: ServersInput["config"], labels: Readonly<Record<string, string>>): object {
  const options = (config.options ?? {}) as {
    readonly k3d?: { readonly disableLoadbalancer?: boolean };
    readonly runtime?: { readonly labels?: readonly object[] };
  };
  const filters = ["server:*", ...(options.k3d?.disableLoadbalancer ? [] : ["loadbalancer"])];
  const own = Object.entries(labels).map(([key, value]) => ({
    label: `${key}=${value}`,
    nodeFilters: filters,
  }));
  const runtime = { ...options.runtime, labels: [...(options.runtime?.labels ?? []), ...own] };
  return { ...config, options: { ...options, runtime } };
}

/** Runs k3d in the root folder, for its config names absolute paths, and without what a shell may say of clusters. */
async function runK3d(cluster: Cluster, config: object): Promise<void> {
  const folder = await mkdtemp(join(tmpdir(), "k3s-lab-k3d-"));
  const kept = Object.entries(process.env).filter(
    ([name]) => !/^K3D_/.test(name) || /^K3D_(IMAGE|FIX)_/.test(name),
  );
  try {
    const { failed, all } = await execa("k3d", ["cluster", "create", "--config", "-"], {
      input: stringify(config),
      cwd: "/",
      // k3d leaves its own temporary files behind.
      env: { ...Object.fromEntries(kept), TMPDIR: folder, LC_ALL: "C" },
      extendEnv: false,
      all: true,
      reject: false,
    });
    console.log(all);
    if (failed)
      throw new LabError(
        `k3d could not make the cluster ${cluster.name}: ${reasonOf(String(all))}. Nothing of it is left.`,
      );
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

/** k3d's own words for what went wrong, without colours and time. */
const reasonOf = (log: string): string =>
  log
    .split("\n")
    .filter((line) => /ERRO|FATA|ENOENT/.test(line))
    // biome-ignore lint/suspicious/noControlCharactersInRegex: k3d colours its log
    .map((line) => line.replaceAll(/\u001b\[[\d;]*m/g, "").replace(/^\w+\[\d+\]\s*/, ""))
    .join("; ") ||
  log.trim().split("\n").at(-1) ||
  "it says nothing";

const addressesOf = ({ NetworkSettings }: Container): string[] =>
  Object.values(NetworkSettings.Networks).flatMap(({ IPAddress, IPAMConfig }) =>
    [IPAddress, IPAMConfig?.IPv4Address ?? ""].filter(Boolean),
  );

/** @throws LabError where the cluster's network is full. */
async function freeAddressOf(cluster: Cluster, name: string): Promise<string> {
  const range = await subnetOf(cluster);
  const used = (await containersOf(cluster.owner)).flatMap(addressesOf);
  const address = freeAddress(range, [gatewayOf(range), ...used]);
  if (address === undefined)
    throw new LabError(`The network ${networkOf(cluster)}, ${range}, has no address left for ${name}.`);
  return address;
}

/**
 * Gives every container the address that it has, for good: Docker gives out addresses in the order containers start, and
 * after a restart of Docker another may have a server's. K3s's tunnel lies on the interface that goes; where flannel has
 * laid it already, K3s starts again.
 */
async function pinAll(cluster: Cluster, range: string): Promise<void> {
  const network = networkOf(cluster);
  const attached = await docker(["ps", "--quiet", "--no-trunc", "--filter", `network=${network}`]);
  const containers = await Promise.all(attached.split("\n").filter(Boolean).map(inspect));
  const pin = async (container: Container) => {
    const { IPAddress: ip = "", IPAMConfig } = container.NetworkSettings.Networks[network] ?? {};
    if (ip === "" || IPAMConfig?.IPv4Address === ip) return;
    const hasTunnel = isServer(container) && (await layTunnel(container));
    if (hasTunnel) await docker(["kill", container.Id]);
    await docker(["network", "disconnect", network, container.Id]);
    await docker(["network", "connect", "--ip", ip, network, container.Id]);
    if (hasTunnel) await docker(["start", container.Id]);
    // It may have laid one in these very moments.
    else if (
      isServer(container) &&
      (await layTunnel(container)) &&
      !(await exists(container, "/sys/class/net/flannel.1"))
    )
      await docker(["restart", "--time", "1", container.Id]);
  };
  await Promise.all(containers.filter((one) => one !== undefined).map(pin));
  console.log(`the addresses in ${range} are fixed`);
}

const exists = async (container: Container, path: string): Promise<boolean> =>
  !(await tryDocker(["exec", container.Id, "test", "-e", path])).failed;
const layTunnel = (container: Container): Promise<boolean> => exists(container, "/run/flannel/subnet.env");

/** Starts a container that does not run; one that is paused goes on. */
async function wake(container: Container): Promise<void> {
  const status = container.State.Status;
  if (status === "paused") await docker(["unpause", container.Id]);
  else if (status === "exited" || status === "created") await docker(["start", container.Id]);
}

const kubectl = (server: Container, args: readonly string[], seconds = 20) =>
  tryDocker(["exec", server.Id, "kubectl", "--request-timeout=10s", ...args], { within: seconds });

async function until(seconds: number, what: string, condition: () => Promise<boolean>): Promise<void> {
  try {
    await pWaitFor(condition, { interval: 300, timeout: seconds * 1000 });
  } catch (error) {
    if (error instanceof TimeoutError) throw new LabError(`${what} within ${seconds} s.`);
    throw error;
  }
}

/** What a container of K3s said last; shown where it does not come up. */
async function lastWords(name: string): Promise<string> {
  // K3s writes to standard error alone.
  const { stderr } = await tryDocker(["logs", "--tail", "15", name]);
  return `\nThe last lines of its log:\n${stderr}`;
}

async function withWords<Result>(name: string, work: Promise<Result>): Promise<Result> {
  try {
    return await work;
  } catch (error) {
    throw new LabError(`${(error as Error).message}${await lastWords(name)}`, { cause: error });
  }
}

const isReady = async (server: Container): Promise<boolean> =>
  !(await kubectl(server, ["get", "--raw", "/readyz"])).failed;

async function untilReady(server: Container): Promise<void> {
  const name = nameOf(server);
  await withWords(
    name,
    until(readyWithin, `The API server in ${name} is not ready`, () => isReady(server)),
  );
}

// An agent's K3s has joined its server, and got its certificates from it, when its containerd answers.
async function untilContainerd(name: string): Promise<void> {
  const answers = async () => !(await tryDocker(["exec", name, "ctr", "version"])).failed;
  await withWords(name, until(readyWithin, `K3s in ${name} has not started its containerd`, answers));
}

/**
 * A server whose API is ready.
 * @throws LabError where none is.
 */
async function servingServer(cluster: Cluster): Promise<Container> {
  const servers = (await containersOf(cluster.owner)).filter(
    (one) => isServer(one) && labelOf(one, "k3d.cluster") === cluster.name && one.State.Status === "running",
  );
  let found: Container | undefined;
  const look = async () => {
    const ready = await Promise.all(servers.map(isReady));
    found = servers[ready.indexOf(true)];
    return found !== undefined;
  };
  if (servers.length) await until(60, `No server of the cluster ${cluster.name} answers`, look);
  if (found === undefined)
    throw new LabError(
      `No server of the cluster ${cluster.name} runs. Run \`scripts/lab up ${cluster.owner.stack}\`.`,
    );
  return found;
}

/** The nodes that a cluster knows; undefined where it does not answer. @param server one that runs. Default: nobody is asked. */
export async function knownNodes(server: Container | undefined): Promise<ReadonlySet<string> | undefined> {
  if (server === undefined) return undefined;
  const { failed, stdout } = await kubectl(server, ["get", "nodes", "--output=name"]);
  return failed ? undefined : new Set(stdout.split("\n").map((line) => line.trim().replace(/^node\//, "")));
}

/** Seconds in which a node that has just started makes itself known. */
const knownWithin = 30;

/** Those of the nodes that the cluster does not know, though they have had the time to make themselves known. */
async function unknownNodes(server: Container | undefined, names: readonly string[]): Promise<string[]> {
  let unknown: string[] = [];
  const look = async () => {
    const known = await knownNodes(server);
    unknown = known ? names.filter((name) => !known.has(name)) : [];
    return known !== undefined && unknown.length === 0;
  };
  await pWaitFor(look, { interval: 300, timeout: knownWithin * 1000 }).catch((error: unknown) => {
    if (!(error instanceof TimeoutError)) throw error;
  });
  return unknown;
}

const untilKnown = (server: Container, name: string): Promise<void> =>
  withWords(
    name,
    until(readyWithin, `The cluster does not know the node ${name}`, async () =>
      Boolean((await knownNodes(server))?.has(name)),
    ),
  );

/** Starts K3s in a container anew. */
async function restart(container: Container): Promise<void> {
  await docker(["restart", "--time", "10", container.Id]);
  if (isServer(container)) await untilReady(container);
}

/** Has the cluster forget a node, its password, without which none of that name could join, and its pods. */
async function forget(server: Container, name: string): Promise<void> {
  const told = [
    await kubectl(server, ["delete", "--ignore-not-found", "node", name], 90),
    await kubectl(server, [
      ...[
        "delete",
        "--ignore-not-found",
        "--namespace",
        "kube-system",
        "secret",
        `${name}.node-password.k3s`,
      ],
    ]),
    await kubectl(server, [
      ...["delete", "pods", "--all-namespaces", "--force", "--grace-period=0"],
      ...["--field-selector", `spec.nodeName=${name}`],
    ]),
  ];
  for (const { failed, stderr } of told)
    if (failed) console.log(`the cluster still knows ${name}: ${stderr}`);
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

/** etcd lets go of a member that is gone; K3s does it where the node is annotated so (its pkg/etcd/member_controller.go). */
async function leaveEtcd(server: Container, name: string): Promise<void> {
  const removed = "etcd\\.k3s\\.cattle\\.io/removed-node-name";
  const isKnown = await kubectl(server, ["get", "node", name, "--ignore-not-found", "--output=name"]);
  if (isKnown.failed || isKnown.stdout.trim() === "") return;
  await until(90, `etcd still has the member of ${name}`, async () => {
    await kubectl(server, ["annotate", "--overwrite", "node", name, "etcd.k3s.cattle.io/remove=true"]);
    const { stdout } = await kubectl(server, [
      "get",
      "node",
      name,
      `--output=jsonpath={.metadata.annotations.${removed}}`,
    ]);
    return stdout.trim() !== "";
  });
}

/** Makes k3d's load balancer again, as k3d makes it (`LoadbalancerPrepare` of k3d v5), of the version that the cluster has. */
async function makeBalancer(
  cluster: Cluster,
  { name, publish, targets }: Balancer,
  server: Container,
): Promise<void> {
  console.log(`${name} is gone: it is made again`);
  await removeContainer(name);
  const version = labelOf(server, "k3d.version")?.replace(/^v/, "");
  const image = process.env.K3D_IMAGE_LOADBALANCER || `ghcr.io/k3d-io/k3d-proxy:${version}`;
  await pull(image);
  const shared = Object.entries(server.Config.Labels ?? {}).filter(
    ([key]) => key === "app" || (key.startsWith("k3d.") && !/^k3d\.(role|node|server\.(init|api))/.test(key)),
  );
  const labels = [...shared, ...Object.entries(labelsOf(cluster)), ["k3d.role", "loadbalancer"]];
  await withFiles({ labels: labels.map((pair) => pair.join("=")) }, async (files) => {
    await docker([
      ...["create", "--name", name, "--hostname", name, "--privileged", "--userns", "host", "--init"],
      ...["--restart", "unless-stopped", "--tmpfs", "/run", "--tmpfs", "/var/run"],
      ...[
        "--network",
        networkOf(cluster),
        "--ip",
        await freeAddressOf(cluster, name),
        "--label-file",
        files.labels,
      ],
      ...publish.flatMap((port) => ["--publish", port]),
      image,
    ]);
  });
  const workerConnections = 1024 + publish.length * (targets["6443.tcp"]?.length ?? 1);
  const config = stringify({ ports: targets, settings: { workerConnections } });
  await putFile(name, config, "/etc/confd/values.yaml");
  await docker(["start", name]);
}

/** The load balancer has looked the servers' names up when it started. */
async function reloadLoadBalancer({ owner }: Cluster): Promise<void> {
  const balancer = (await containersOf(owner)).find((one) => roleOf(one) === "loadbalancer");
  if (balancer) await docker(["exec", balancer.Id, "nginx", "-s", "reload"]);
}

/** Makes a node's container, gives it what k3d gives every node before its start, and starts it. */
async function makeNode(node: JoiningNode): Promise<Container> {
  const { env, labels } = createNode(node, { env: "", labels: "" });
  await withFiles({ env, labels }, (files) => docker(createNode(node, files).args));
  const handed = [
    "/etc/rancher/k3s/registries.yaml",
    ...["", "-dns", "-cgroupv2", "-mounts"].map((fix) => `/bin/k3d-entrypoint${fix}.sh`),
  ];
  for (const path of handed) await handOn(node.server, node.name, path);
  for (const { source, destination } of node.config.files) await putFile(node.name, source, destination);
  await docker(["start", node.name]);
  const made = await inspect(node.name);
  if (made === undefined)
    throw new LabError(`Docker has no container ${node.name} right after it was started.`);
  return made;
}

/** Copies a file from one node to another; nothing where the first has none. */
async function handOn(from: Container, to: string, path: string): Promise<void> {
  const archive = await copyOut(from.Id, path);
  if (archive) await docker(["cp", "-", `${to}:${dirname(path)}`], { input: archive });
}

async function putFile(name: string, source: string, destination: string): Promise<void> {
  const folder = await mkdtemp(join(tmpdir(), "k3s-lab-k3d-"));
  try {
    // `docker cp` makes no folders: the file comes with its path.
    const local = join(folder, destination);
    await mkdir(dirname(local), { recursive: true });
    await writeFile(local, source.includes("\n") ? source : await readFile(source), { mode: 0o644 });
    await docker(["cp", `${folder}/.`, `${name}:/`]);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

/** Runs `work` with lists in files that only this user may read: arguments are for everybody to see. */
async function withFiles<Name extends string>(
  lists: Readonly<Record<Name, readonly string[]>>,
  work: (files: Readonly<Record<Name | "env" | "labels", string>>) => Promise<unknown>,
): Promise<void> {
  const folder = await mkdtemp(join(tmpdir(), "k3s-lab-k3d-"));
  try {
    const files: Record<string, string> = {};
    for (const [name, lines] of Object.entries<readonly string[]>(lists)) {
      files[name] = join(folder, name);
      await writeFile(files[name], `${lines.join("\n")}\n`, { mode: 0o600 });
    }
    await work(files as Record<Name | "env" | "labels", string>);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

/** What a node needs after each start, for Docker writes its /etc/hosts anew; lines of an earlier start go. */
async function addHosts(name: string, lines: readonly string[]): Promise<void> {
  const mark = "# k3s-lab";
  const script = `rest=$(grep -v '${mark}$' /etc/hosts); { echo "$rest"; for line; do echo "$line ${mark}"; done; } >/etc/hosts`;
  await docker(["exec", name, "sh", "-c", script, "sh", ...lines]);
}

/** The name by which nodes and pods reach this computer. */
const ownHost = async (cluster: Cluster): Promise<string> =>
  `${gatewayOf(await subnetOf(cluster))} host.k3d.internal`;

/** What is to be done after every start of the servers, and the mark that it was. */
async function finishStart(cluster: Cluster, { servers, hosts }: ServersInput, boot: string): Promise<void> {
  const all = [await ownHost(cluster), ...hosts];
  for (const { name } of servers) await addHosts(name, all);
  const [first] = servers;
  if (first) await nameHosts(first.name, all);
  for (const { name } of servers) await markBoot(name, boot);
}

/**
 * K3s writes its own list of names for CoreDNS at every start, and what k3d has put into it is gone. This file K3s only
 * reads: CoreDNS knows the computer itself by the name that k3d gives it, also after a restart.
 */
async function nameHosts(server: string, lines: readonly string[]): Promise<void> {
  const names = [...new Set(lines.flatMap((line) => line.split(/\s+/).slice(1)))];
  const block = `${names.map((name) => `${name}:53`).join(" ")} {\n  hosts {\n${lines.map((line) => `    ${line}`).join("\n")}\n  }\n}\n`;
  const manifest = stringify({
    apiVersion: "v1",
    kind: "ConfigMap",
    metadata: { name: "coredns-custom", namespace: "kube-system" },
    data: { "k3s-lab.server": block },
  });
  const path = "/var/lib/rancher/k3s/server/manifests/k3s-lab-host.yaml";
  const write = `mkdir -p ${dirname(path)} && cat >${path}.new && { cmp -s ${path}.new ${path} && rm ${path}.new || mv ${path}.new ${path}; }`;
  await docker(["exec", "--interactive", server, "sh", "-c", write], { input: manifest });
}
