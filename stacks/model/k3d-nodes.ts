import { createHash } from "node:crypto";
import { readFile } from "node:fs/promises";
import { type K3dAgentName, type K3dFile, serversOf, wantsLoadBalancer } from "./k3d-file.ts";
import { type FilteredNode, indicesOf } from "./k3d-filters.ts";
import { parsePort } from "./k3d-schema.ts";

/** Choices made when a cluster was created; they stay for its lifetime. */
export interface K3dImages {
  /** Image of the nodes. Default: the file's. */
  readonly node?: string | undefined;
  /** Image of the registry. Default: the file's, or k3d's own. */
  readonly registry?: string | undefined;
  /** Whether k3d's load balancer exists; without it the first server publishes its ports. */
  readonly loadBalancer: boolean;
}

/** The servers of a cluster and what belongs to them, from a file and the available images. */
export const clusterConfig = (file: K3dFile, images: K3dImages) => ({
  config: createConfig(file, images),
  image: images.node ?? file.image,
  subnet: file.subnet ?? "auto",
  /** In order; a lost server is recreated from this. */
  servers: serversOf(file).map((name, index) => ({
    name,
    config: nodeConfig(file, { role: "server", index }),
    ports: directPorts(file, index, images),
  })),
  /** A lost one is recreated from this; undefined if the cluster has none. */
  balancer: balancerOf(file, images),
  hosts: hostLines(file),
});

/** The part of the file that concerns one node, without entries for other roles or numbers. */
export function nodeConfig(file: K3dFile, { role, index }: FilteredNode) {
  const own = <Entry extends { readonly nodeFilters: readonly string[] }>(all: readonly Entry[]): Entry[] =>
    all.filter(({ nodeFilters }) => indicesOf(role, nodeFilters, file).includes(index));
  const { k3s, runtime } = file.options;
  return {
    volumes: own(file.volumes).map(({ volume }) => volume),
    env: own(file.env).map(({ envVar }) => envVar),
    files: own(file.files).map(({ source, destination }) => ({ source, destination })),
    args: own(k3s.extraArgs).map(({ arg }) => arg),
    nodeLabels: own(k3s.nodeLabels).map(({ label }) => label),
    labels: own(runtime.labels).map(({ label }) => label),
    ulimits: runtime.ulimits.map(({ name, soft, hard }) => `${name}=${soft}:${hard}`),
    gpus: runtime.gpuRequest,
    hostPid: runtime.hostPidMode === true,
  };
}

/** The settings of a node, beside those that it takes over from its cluster. */
export type NodeConfig = ReturnType<typeof nodeConfig>;

/** The file's ports; without a load balancer the first server publishes them. */
const portsOf = ({ ports }: K3dFile, { loadBalancer }: K3dImages): K3dFile["ports"] => {
  const direct = (filter: string) => (filter.endsWith(":direct") ? filter : "server:0:direct");
  return loadBalancer
    ? ports
    : ports.map(({ port, nodeFilters }) => ({ port, nodeFilters: [...new Set(nodeFilters.map(direct))] }));
};

const apiPort = ({ kubeAPI }: K3dFile): string => `${kubeAPI.hostIP}:${kubeAPI.hostPort}:6443`;

/** The ports that a server publishes directly on this computer. */
export const directPorts = (file: K3dFile, index: number, images: K3dImages): string[] => [
  ...(images.loadBalancer || index > 0 ? [] : [apiPort(file)]),
  ...portsOf(file, images)
    .filter(({ nodeFilters }) => nodeFilters.includes(`server:${index}:direct`))
    .map(({ port }) => port),
];

/** k3d's load balancer as `k3d cluster create` would create it from the file. */
export function balancerOf(file: K3dFile, { loadBalancer }: K3dImages) {
  if (!loadBalancer) return undefined;
  const names = serversOf(file);
  const targets: Record<string, readonly string[]> = { "6443.tcp": names };
  const publish = [apiPort(file)];
  for (const { port, nodeFilters } of file.ports) {
    const proxied = nodeFilters.filter((filter) => !filter.endsWith(":direct"));
    if (proxied.length === 0) continue;
    const { inside, protocol } = parsePort(port);
    const isAll = proxied.some((filter) => filter.startsWith("loadbalancer"));
    const chosen = isAll ? names : indicesOf("server", proxied, file).flatMap((index) => names[index] ?? []);
    const key = `${inside}.${protocol}`;
    targets[key] = [...new Set([...(targets[key] ?? []), ...chosen])];
    publish.push(port);
  }
  const overrides = file.options.k3d.loadbalancer?.configOverrides ?? [];
  const settings = Object.fromEntries(
    overrides
      .map((one) => one.replace("settings.", "").split("="))
      .map(([key, value]) => [key, Number(value)]),
  );
  const name = `k3d-${file.metadata.name}-serverlb`;
  return { name, publish, targets, ...(overrides.length ? { settings } : {}) };
}

/**
 * The config for `k3d cluster create`: the file with the available images, without agents and registry, which are separate
 * resources, without the network, which carries the lab's labels, and without host aliases, which a restart would lose.
 */
export function createConfig(file: K3dFile, images: K3dImages) {
  const { agents: _, options, registries, subnet: _n, network: _o, hostAliases: _h, ...rest } = file;
  const forServers = <Entry extends { readonly nodeFilters: readonly string[] }>(all: readonly Entry[]) =>
    all.flatMap((entry) => {
      const servers = indicesOf("server", entry.nodeFilters, file);
      return servers.length ? [{ ...entry, nodeFilters: [`server:${servers.join(",")}`] }] : [];
    });
  const { create, ...ofRegistries } = registries ?? {};
  const use = [...(registries?.use ?? []), ...(create ? [`${create.name}:${create.hostPort}`] : [])];
  const { serversMemory: _s, agentsMemory: _a, ...runtime } = options.runtime;
  return {
    ...rest,
    ...(images.node ? { image: images.node } : {}),
    volumes: forServers(file.volumes),
    env: forServers(file.env),
    // k3d runs in the root folder and resolves paths from there.
    files: forServers(file.files).map((one) => ({ ...one, source: one.source.replace(/^\//, "") })),
    ports: portsOf(file, images),
    options: {
      k3d: images.loadBalancer ? options.k3d : { ...options.k3d, disableLoadbalancer: true },
      k3s: { extraArgs: forServers(options.k3s.extraArgs), nodeLabels: forServers(options.k3s.nodeLabels) },
      kubeconfig: { updateDefaultKubeconfig: false, switchCurrentContext: false },
      runtime: { ...runtime, labels: forServers(runtime.labels) },
    },
    registries: { ...ofRegistries, ...(use.length ? { use } : {}) },
  };
}

/** Lines for /etc/hosts of every node and for CoreDNS, beside this computer's name. */
export const hostLines = ({ hostAliases }: K3dFile): string[] =>
  hostAliases.map(({ ip, hostnames }) => `${ip} ${hostnames.join(" ")}`);

/**
 * The settings that identify the cluster: a change requires another cluster, because k3d changes none in place. A hash,
 * because Pulumi's state shows it: tokens, variables and files may hold passwords.
 */
export async function clusterIdentity(file: K3dFile): Promise<string> {
  const { metadata, servers, image, kubeAPI, ports, subnet, token, registries, options } = file;
  const { create, use, config } = registries ?? {};
  return hashOf(
    JSON.stringify({
      ...{ metadata, servers, image, kubeAPI, subnet, token, use },
      ports: ports.map(({ port, nodeFilters }) => `${port} ${[...nodeFilters].sort().join(" ")}`).sort(),
      registries: config && hashOf(await contentOf(config)),
      registry: create && `${create.name}:${create.hostPort}`,
      loadBalancer: wantsLoadBalancer(file),
      overrides: options.k3d.loadbalancer?.configOverrides,
      nodes: await Promise.all(serversOf(file).map((_, index) => nodeIdentity(file, "server", index))),
    }),
  );
}

/** The settings that identify an agent: a change requires another container. */
export const agentIdentity = (file: K3dFile, { index }: K3dAgentName): Promise<string> =>
  nodeIdentity(file, "agent", index);

async function nodeIdentity(
  file: K3dFile,
  role: FilteredNode["role"],
  index: FilteredNode["index"],
): Promise<string> {
  const { files, ...config } = nodeConfig(file, { role, index });
  const contents = files.map(async ({ source, ...one }) => ({
    ...one,
    hash: hashOf(await contentOf(source)),
  }));
  return hashOf(JSON.stringify({ ...config, files: await Promise.all(contents) }));
}

/** @param source a file, or a text of several lines. */
export const contentOf = async (source: string): Promise<string | Buffer> =>
  source.includes("\n") ? source : await readFile(source);

export const hashOf = (content: string | Buffer): string =>
  createHash("sha256").update(content).digest("hex");
