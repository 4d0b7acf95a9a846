import type { NodeConfig } from "../k3d-file.ts";
import { type Container, labelOf } from "./docker.ts";

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

/** What `docker create` is told; what may hold secrets goes by files, a line each, and not by its arguments. */
export interface CreateNode {
  readonly args: readonly string[];
  readonly env: readonly string[];
  readonly labels: readonly string[];
}

/** Labels of k3d's that are of one container alone. */
const ofOneNode = /^k3d\.(role|node\.staticIP|server\.init)$/;

/**
 * A container as k3d itself makes them for a new cluster (`TranslateNodeToContainer` of k3d v5). `k3d node create` cannot
 * stand in for it: it numbers nodes by itself, gives no server its ports and address back, and knows nothing of the config
 * file's volumes, variables and files.
 *
 * @param files paths of an env file and a label file, see `CreateNode`.
 */
export function createNode(
  node: JoiningNode,
  files: { readonly env: string; readonly labels: string },
): CreateNode {
  const { name, role, address, config, ports, server, labels } = node;
  const cluster = labelOf(server, "k3d.cluster") ?? "";
  const token = server.Config.Env?.find((one) => one.startsWith("K3S_TOKEN=")) ?? "";
  const shared = Object.entries(server.Config.Labels ?? {}).filter(
    ([key]) => key === "app" || (key.startsWith("k3d") && !ofOneNode.test(key)),
  );
  const volume = labelOf(server, "k3d.cluster.imageVolume");
  const entrypoint = server.Config.Entrypoint?.[0];
  const repeat = (flag: string, values: readonly string[]) => values.flatMap((value) => [flag, value]);
  const names = [labelOf(server, "k3d.server.api.host"), labelOf(server, "k3d.server.loadbalancer")];
  return {
    args: [
      ...["create", "--name", name, "--hostname", name, "--privileged", "--userns", "host", "--init"],
      ...["--restart", "unless-stopped", "--tmpfs", "/run", "--tmpfs", "/var/run"],
      ...["--network", `k3d-${cluster}`, "--ip", address],
      ...["--env-file", files.env, "--label-file", files.labels],
      ...repeat("--volume", [...config.volumes, ...(volume ? [`${volume}:/k3d/images`] : [])]),
      ...repeat("--ulimit", config.ulimits),
      ...repeat("--publish", ports),
      ...(config.gpus === undefined ? [] : ["--gpus", config.gpus]),
      ...(config.hostPid ? ["--pid", "host"] : []),
      // k3d's own, which a file in the container is; any other is the image's.
      ...(entrypoint?.startsWith("/bin/k3d-entrypoint") ? ["--entrypoint", entrypoint] : []),
      server.Config.Image,
      role,
      ...config.args,
      ...repeat("--node-label", config.nodeLabels),
      ...(role === "server"
        ? repeat("--tls-san", names.filter((one) => one !== undefined && one !== "") as string[])
        : []),
    ],
    env: [
      ...config.env,
      token,
      `K3S_URL=https://${server.Name.replace(/^\//, "")}:6443`,
      "K3S_KUBECONFIG_OUTPUT=/output/kubeconfig.yaml",
    ],
    labels: [
      ...shared.map(([key, value]) => `${key}=${value}`),
      ...config.labels,
      ...Object.entries(labels).map(([key, value]) => `${key}=${value}`),
      `k3d.role=${role}`,
      `k3d.node.staticIP=${address}`,
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
