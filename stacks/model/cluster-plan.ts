import { refusal } from "../lib/errors.ts";
import { root } from "../lib/paths.ts";
import { recordedOf } from "../observe/recorded.ts";
import {
  type ClusterConfig,
  k3sArgsOf,
  k3sVersion,
  type LoadBalancerMachine,
  type Machine,
  type OnCluster,
  programOf,
  readStackFile,
} from "./config.ts";
import {
  agentsOf,
  containerAddress,
  type K3dFile,
  k3sVersionOf,
  publishedPort,
  readK3dFile,
  serverArgsOf,
  serversOf,
} from "./k3d-file.ts";
import { nodeConfig } from "./k3d-nodes.ts";
import { type Backends, backendsOf, ingressMachines } from "./load-balancer.ts";
import type { ClusterNode } from "./outputs.ts";
import { machineAddress } from "./ssh-config.ts";

export interface PlannedNode extends ClusterNode {
  /** The machine that it runs on; absent for a k3d container. */
  readonly machine?: Machine;
  /** K3s's flags from the file. */
  readonly args: readonly string[];
}

/** A k3d node; its labels are K3s flags too. */
function containerNode(file: K3dFile, name: string, role: PlannedNode["role"], index: number): PlannedNode {
  const { args, nodeLabels } = nodeConfig(file, { role, index });
  const address = containerAddress(name);
  return { name, role, address, args: [...args, ...nodeLabels.map((label) => `--node-label=${label}`)] };
}

/** The address by which this computer reaches a machine's services. */
export const servedAt = ({ ip, publicAddress }: Pick<Machine, "ip" | "publicAddress">): string =>
  publicAddress ?? ip;

/** Where apps are reachable: at the load balancer, and at each of these machines. */
export const ingressAddresses = (
  config: Pick<ClusterConfig, "machines" | "k3s" | "loadBalancer">,
): string[] => [config.loadBalancer ?? [], ingressMachines(config)].flat().map(servedAt);

/** K3s's flags that add the servers' public addresses to the API server's certificate, the same on every server. */
export const publicNames = (servers: readonly Machine[]): string[] =>
  [...new Set(servers.flatMap(({ publicAddress = [] }) => publicAddress))].map((name) => `--tls-san=${name}`);

/** The cluster that a stack's file describes, whichever program creates it. */
export interface ClusterPlan {
  readonly nodes: readonly PlannedNode[];
  /** The machine in front of the nodes, and its backends. */
  readonly loadBalancer?: { readonly machine: LoadBalancerMachine; readonly backends: Backends } | undefined;
  /** The K3s release, such as v1.25.4+k3s1. */
  readonly version: string;
  readonly serverArgs: readonly string[];
  /** The machines' network, such as 192.168.42.0/24; absent for k3d and for hosts, which may be in any network. */
  readonly network?: string;
  /** Address of its Ingress controller as this computer reaches it, as `host` or `host:port`. */
  readonly ingress: readonly string[];
  /** The https port there; absent if https is not reachable. */
  readonly httpsPort?: number | undefined;
}

/** The https address that belongs to an http address. */
export const httpsAddress = (
  address: string,
  { httpsPort = 443 }: Pick<ClusterPlan, "httpsPort">,
): string => {
  const [host = address] = address.split(":");
  return httpsPort === 443 ? host : `${host}:${httpsPort}`;
};

/**
 * Reads the plan of the cluster that a stack's apps run on; undefined if no stack creates it.
 * @param directory the folder of the stack files. Default: the checkout.
 */
export const planOf = async (
  { cluster }: Pick<OnCluster, "cluster">,
  directory: string = root,
): Promise<ClusterPlan | undefined> =>
  "stack" in cluster ? await readClusterPlan(cluster.stack, directory) : undefined;

/**
 * Reads the cluster that a stack creates from its file.
 * @param directory the folder of `Pulumi.yaml`.
 * @throws LabError (exit code 2) when the file is missing or wrong, or the stack creates no cluster.
 */
export async function readClusterPlan(stack: string, directory: string): Promise<ClusterPlan> {
  const program = programOf(stack);
  if (program === "cluster") {
    const config = await readStackFile(stack as "cluster", directory);
    const { provider, machines, network, k3s, loadBalancer } = config;
    return {
      loadBalancer: loadBalancer && { machine: loadBalancer, backends: backendsOf(config) },
      nodes: machines.map((machine) => ({
        ...{ name: machine.name, role: machine.role, machine },
        address: machineAddress(stack, machine.name),
        args: k3sArgsOf(k3s, machine),
      })),
      version: k3sVersion(config, (await recordedOf(stack, directory)).k3sVersion),
      serverArgs: k3s.serverArgs,
      ...(provider === "hosts" ? {} : { network }),
      ingress: ingressAddresses(config),
      httpsPort: 443,
    };
  }
  if (program === "k3d") {
    const { config } = await readStackFile(stack as "k3d", directory);
    const file = await readK3dFile(config, directory);
    const port = publishedPort(file, 80);
    return {
      nodes: [
        ...serversOf(file).map((name, index) => containerNode(file, name, "server", index)),
        ...agentsOf(file).map(({ name, index }) => containerNode(file, name, "agent", index)),
      ],
      version: k3sVersionOf(file),
      serverArgs: serverArgsOf(file),
      ingress: port === undefined ? [] : [`${file.kubeAPI.hostIP}:${port}`],
      httpsPort: publishedPort(file, 443),
    };
  }
  throw refusal(`The stack "${stack}" creates no cluster. Name a cluster… or k3d… stack.`);
}
