import { createHash } from "node:crypto";
import { readFile } from "node:fs/promises";
import { type K3dAgentName, type K3dFile, serversOf, wantsLoadBalancer } from "./k3d-file.ts";
import { type FilteredNode, indicesOf } from "./k3d-filters.ts";
import { parsePort } from "./k3d-schema.ts";

/** What was chosen when a cluster was made; it stays as long as the cluster lives. */
export interface K3dImages {
  /** Image of the nodes. Default: the file's. */
  readonly node?: string | undefined;
  /** Image of the registry. Default: the file's, or k3d's own. */
  readonly registry?: string | undefined;
  /** Whether k3d's load balancer is there; without it the first server answers in its place. */
  readonly loadBalancer: boolean;
}

/** The servers of a cluster and what belongs to them, as a file and the images that are here make them. */
export const clusterConfig = (file: K3dFile, images: K3dImages) => ({
  config: createConfig(file, images),
  image: images.node ?? file.image,
  subnet: file.subnet ?? "auto",
  /** In their order; a lost one is made from this. */
  servers: serversOf(file).map((name, index) => ({
    name,
    config: nodeConfig(file, { role: "server", index }),
    ports: directPorts(file, index, images),
  })),
  /** A lost one is made from this; undefined where the cluster has none. */
  balancer: balancerOf(file, images),
  hosts: hostLines(file),
});

/** The file, as far as it says what one of its nodes is: what has another role or number is not in it. */
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

/** What a node is made from, beside what it takes over from its cluster. */
export type NodeConfig = ReturnType<typeof nodeConfig>;

/** The file's ports; where no load balancer could pass them on, they lead straight to the first server. */
const portsOf = ({ ports }: K3dFile, { loadBalancer }: K3dImages): K3dFile["ports"] => {
  const direct = (filter: string) => (filter.endsWith(":direct") ? filter : "server:0:direct");
  return loadBalancer
    ? ports
    : ports.map(({ port, nodeFilters }) => ({ port, nodeFilters: [...new Set(nodeFilters.map(direct))] }));
};

const apiPort = ({ kubeAPI }: K3dFile): string => `${kubeAPI.hostIP}:${kubeAPI.hostPort}:6443`;

/** The ports of this computer that lead straight to a server. */
export const directPorts = (file: K3dFile, index: number, images: K3dImages): string[] => [
  ...(images.loadBalancer || index > 0 ? [] : [apiPort(file)]),
  ...portsOf(file, images)
    .filter(({ nodeFilters }) => nodeFilters.includes(`server:${index}:direct`))
    .map(({ port }) => port),
];

/** k3d's load balancer, as `k3d cluster create` makes it of the file. */
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
 * What `k3d cluster create` is told: the file, but agents and the registry, which are resources of their own, the network,
 * which carries the lab's labels, and host aliases, which a restart would take away; and with the images that are there.
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
    // k3d runs in the root folder, and takes paths for relative to it.
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

/** Lines for /etc/hosts of every node and for CoreDNS, beside the computer's own name. */
export const hostLines = ({ hostAliases }: K3dFile): string[] =>
  hostAliases.map(({ ip, hostnames }) => `${ip} ${hostnames.join(" ")}`);

/**
 * What of the file makes the cluster what it is: another value needs another cluster, for k3d changes none in place. A
 * hash, since Pulumi's state shows it: tokens, variables and files may hold passwords.
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

/** What of the file makes an agent what it is: another value needs another container. */
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
