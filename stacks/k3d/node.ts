import type { NodeConfig } from "../model/k3d-nodes.ts";
import { pairs, type ServersInput } from "./cluster.ts";
import { type Container, repeat } from "./docker.ts";

/** A node that joins a k3d cluster. */
export interface JoiningNode {
  readonly name: string;
  readonly role: "server" | "agent";
  /** Its fixed address in the cluster's network: Docker would give it another after a restart. */
  readonly address: string;
  readonly config: NodeConfig;
  /** Ports that it publishes directly on this computer, as for `docker create --publish`. */
  readonly ports: readonly string[];
  /** A running server: the node joins it, and takes over what is the same for all nodes of the cluster. */
  readonly server: Container;
  readonly labels: Readonly<Record<string, string>>;
}

/** Input of `docker create`; what may hold secrets is passed in files, one item a line, and not as arguments. */
export interface CreateNode {
  readonly args: readonly string[];
  readonly env: readonly string[];
  readonly labels: readonly string[];
}

/** What k3d gives every container of a cluster. */
export const k3dRunOptions = (network: string, address: string): string[] => [
  ...["--privileged", "--userns", "host", "--init", "--tmpfs", "/run", "--tmpfs", "/var/run"],
  ...["--network", network, "--ip", address],
];

/** k3d's labels that a container takes over from a server; the others are specific to that server. */
export const sharedLabels = ({ labels }: Container): string[] =>
  pairs(labels).filter((one) => /^(app=|k3d)/.test(one) && !/^k3d\.(role|node\.|server\.init=)/.test(one));

/**
 * A container as k3d itself creates it (`TranslateNodeToContainer` of k3d v5). `k3d node create` is unsuitable: it numbers
 * nodes itself, does not restore a server's ports and address, and ignores the config file's volumes, variables and files.
 */
export function createNode(node: JoiningNode): CreateNode {
  const { role, address, config, ports, server } = node;
  const { labels, image, entrypoint, env } = server;
  const volume = labels["k3d.cluster.imageVolume"];
  const names = [labels["k3d.server.api.host"], labels["k3d.server.loadbalancer"]];
  return {
    args: [
      ...k3dRunOptions(`k3d-${labels["k3d.cluster"]}`, address),
      ...repeat("--volume", [...config.volumes, ...(volume ? [`${volume}:/k3d/images`] : [])]),
      ...repeat("--ulimit", config.ulimits),
      ...repeat("--publish", ports),
      ...(config.gpus === undefined ? [] : ["--gpus", config.gpus]),
      ...(config.hostPid ? ["--pid", "host"] : []),
      // k3d's entrypoint if the container has the file; otherwise the image's.
      ...(entrypoint?.startsWith("/bin/k3d-entrypoint") ? ["--entrypoint", entrypoint] : []),
      ...[image, role, ...config.args, ...repeat("--node-label", config.nodeLabels)],
      ...(role === "server"
        ? repeat(
            "--tls-san",
            names.flatMap((one) => one || []),
          )
        : []),
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
      ...pairs(node.labels),
      ...[`k3d.role=${role}`, `k3d.node.staticIP=${address}`],
      ...(role === "server" ? ["k3d.server.init=false"] : []),
    ],
  };
}

/** The configuration of k3d's load balancer: the backends of each port, and its own settings. */
export function balancerValues({ publish, targets, settings }: NonNullable<ServersInput["balancer"]>) {
  const workerConnections = 1024 + publish.length * (targets["6443.tcp"]?.length ?? 1);
  return { ports: targets, settings: { workerConnections, ...settings } };
}
