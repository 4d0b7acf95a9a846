import type { NodeConfig } from "../model/k3d-file.ts";
import type { Container } from "./docker.ts";

/** A node that joins a cluster of k3d's. */
export interface JoiningNode {
  readonly name: string;
  readonly role: "server" | "agent";
  /** Its address in the cluster's network, for good: Docker would give it another after a restart. */
  readonly address: string;
  readonly config: NodeConfig;
  /** Ports of this computer that lead straight to it, as `docker create --publish` takes them. */
  readonly ports: readonly string[];
  /** A server that runs: the node joins it, and takes over what is the same for all nodes of the cluster. */
  readonly server: Container;
  /** Labels of the lab's own. */
  readonly labels: Readonly<Record<string, string>>;
}

/** What `docker create` is told beside a name; what may hold secrets goes by files, a line each, and not by its arguments. */
export interface CreateNode {
  readonly args: readonly string[];
  readonly env: readonly string[];
  readonly labels: readonly string[];
}

/** What k3d gives every container of a cluster. */
export const likeK3d = (network: string, address: string): string[] => [
  ...["--privileged", "--userns", "host", "--init", "--tmpfs", "/run", "--tmpfs", "/var/run"],
  ...["--network", network, "--ip", address],
];

/** The labels of k3d's that a container takes over from a server; the others are of that one alone. */
export const sharedLabels = ({ labels }: Container): string[] =>
  Object.entries(labels)
    .filter(([key]) => key === "app" || (/^k3d/.test(key) && !/^k3d\.(role|node\.|server\.init$)/.test(key)))
    .map((pair) => pair.join("="));

export const repeat = (flag: string, values: readonly string[]): string[] =>
  values.flatMap((value) => [flag, value]);

/**
 * A container as k3d itself makes them for a new cluster (`TranslateNodeToContainer` of k3d v5). `k3d node create` cannot
 * stand in for it: it numbers nodes by itself, gives no server its ports and address back, and knows nothing of the config
 * file's volumes, variables and files.
 */
export function createNode(node: JoiningNode): CreateNode {
  const { role, address, config, ports, server } = node;
  const { labels, image, entrypoint, env } = server;
  const volume = labels["k3d.cluster.imageVolume"];
  const names = [labels["k3d.server.api.host"], labels["k3d.server.loadbalancer"]].filter((one) => !!one);
  return {
    args: [
      ...likeK3d(`k3d-${labels["k3d.cluster"]}`, address),
      ...repeat("--volume", [...config.volumes, ...(volume ? [`${volume}:/k3d/images`] : [])]),
      ...repeat("--ulimit", config.ulimits),
      ...repeat("--publish", ports),
      ...(config.gpus === undefined ? [] : ["--gpus", config.gpus]),
      ...(config.hostPid ? ["--pid", "host"] : []),
      // k3d's own, which a file in the container is; any other is the image's.
      ...(entrypoint?.startsWith("/bin/k3d-entrypoint") ? ["--entrypoint", entrypoint] : []),
      ...[image, role, ...config.args, ...repeat("--node-label", config.nodeLabels)],
      ...(role === "server" ? repeat("--tls-san", names as string[]) : []),
    ],
    env: [
      ...config.env,
      ...env.filter((one) => one.startsWith("K3S_TOKEN=")),
      `K3S_URL=https://${server.name}:6443`,
      "K3S_KUBECONFIG_OUTPUT=/output/kubeconfig.yaml",
    ],
    labels: [
      ...sharedLabels(server),
      ...config.labels,
      ...Object.entries(node.labels).map((pair) => pair.join("=")),
      ...[`k3d.role=${role}`, `k3d.node.staticIP=${address}`],
      ...(role === "server" ? ["k3d.server.init=false"] : []),
    ],
  };
}

const toNumber = (address: string): number =>
  address.split(".").reduce((sum, part) => sum * 256 + Number(part), 0);
const toAddress = (number: number): string =>
  [24, 16, 8, 0].map((shift) => Math.floor(number / 2 ** shift) % 256).join(".");

/** First and last address of an IPv4 network, those that no node may have. */
function ends(network: string): [number, number] {
  const [base = "", bits = "0"] = network.split("/");
  const first = toNumber(base);
  return [first, first + 2 ** (32 - Number(bits)) - 1];
}

/** The lowest address of a network that nobody has; undefined where it is full. @param taken addresses in use. */
export function freeAddress(network: string, taken: readonly string[]): string | undefined {
  const [first, last] = ends(network);
  for (let number = first + 1; number < last; number++) {
    const address = toAddress(number);
    if (!taken.includes(address)) return address;
  }
  return undefined;
}

/** The address of an agent: counted from the network's end, so that agents that come together need not ask each other. */
export function agentAddress(network: string, index: number): string {
  const [, last] = ends(network);
  return toAddress(last - 1 - index);
}

/** The first address of a network, which its bridge gets. */
export const gatewayOf = (network: string): string => toAddress(ends(network)[0] + 1);
