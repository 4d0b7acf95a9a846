import { refusal } from "../lib/errors.ts";
import { recordedOf } from "../observe/recorded.ts";
import {
  type ClusterConfig,
  k3sArgsOf,
  k3sVersion,
  type LoadBalancerMachine,
  type Machine,
  programOf,
  readStackFile,
} from "./config.ts";
import {
  agentsOf,
  type K3dFile,
  k3sVersionOf,
  publishedPort,
  readK3dFile,
  serverArgsOf,
  serversOf,
} from "./k3d-file.ts";
import { nodeConfig } from "./k3d-nodes.ts";
import { type Backends, backendsOf, ingressMachines } from "./load-balancer.ts";

export interface PlannedNode {
  /** Its name in Kubernetes. */
  readonly name: string;
  readonly role: Machine["role"];
  /** The machine that it runs on; absent for a container of k3d's. */
  readonly machine?: Machine;
  /** The flags of K3s that the file gives it. */
  readonly args: readonly string[];
}

/** A node of k3d's; its labels are flags of K3s too. */
function containerNode(file: K3dFile, name: string, role: PlannedNode["role"], index: number): PlannedNode {
  const { args, nodeLabels } = nodeConfig(file, { role, index });
  return { name, role, args: [...args, ...nodeLabels.map((label) => `--node-label=${label}`)] };
}

/** Where this computer reaches what a machine serves. */
export const servedAt = ({ ip, publicAddress }: Pick<Machine, "ip" | "publicAddress">): string =>
  publicAddress ?? ip;

/** Where requests to apps are answered: at the load balancer, and by each of these machines alone. */
export const ingressAddresses = (
  config: Pick<ClusterConfig, "machines" | "k3s" | "loadBalancer">,
): string[] => [config.loadBalancer ?? [], ingressMachines(config)].flat().map(servedAt);

/** K3s's flags that put the servers' public addresses into the API server's certificate, on every server the same. */
export const publicNames = (servers: readonly Machine[]): string[] =>
  [...new Set(servers.flatMap(({ publicAddress = [] }) => publicAddress))].map((name) => `--tls-san=${name}`);

/** What the file of a stack says of the cluster that it makes, whichever program makes it. */
export interface ClusterPlan {
  readonly nodes: readonly PlannedNode[];
  /** The machine in front of the nodes, and to whom it leads. */
  readonly loadBalancer?: { readonly machine: LoadBalancerMachine; readonly backends: Backends } | undefined;
  /** The K3s release, such as v1.25.4+k3s1. */
  readonly version: string;
  readonly serverArgs: readonly string[];
  /** The machines' network, such as 192.168.42.0/24; absent for k3d, and for hosts, which may be in any. */
  readonly network?: string;
  /** Where its Ingress controller is reached from this computer, as `host` or `host:port`. */
  readonly ingress: readonly string[];
  /** The port at which its https is reached there; absent where none leads to it. */
  readonly httpsPort?: number | undefined;
}

/** Where https is answered that is at an address by http. */
export const httpsAddress = (
  address: string,
  { httpsPort = 443 }: Pick<ClusterPlan, "httpsPort">,
): string => {
  const [host = address] = address.split(":");
  return httpsPort === 443 ? host : `${host}:${httpsPort}`;
};

/**
 * Reads the cluster that a stack makes from its file.
 * @param directory the folder of `Pulumi.yaml`.
 * @throws LabError (exit code 2) when the file is missing or wrong, or the stack makes no cluster.
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
