import * as pulumi from "@pulumi/pulumi";
import { publicNames } from "../model/cluster-plan.ts";
import { type ClusterConfig, k3sArgsOf, type Machine } from "../model/config.ts";
import type { MachineObservation } from "../observe/machine-list.ts";
import {
  lostCluster,
  lostData,
  noCluster,
  nodeFault,
  type ObservedNode,
  rolloutGroups,
} from "../observe/nodes.ts";
import { K3sNode, K3sStart } from "./k3s-node.ts";
import { asRecorded, type LabMachine } from "./lab-machine.ts";

interface MadeMachine {
  readonly machine: Machine;
  readonly resource: LabMachine;
  readonly observed: MachineObservation;
}

/** Inputs of the installation of a cluster's nodes. */
export interface InstallNodesArgs {
  readonly made: readonly MadeMachine[];
  /** Machines that become servers; the first one starts the cluster. */
  readonly servers: readonly [Machine, ...Machine[]];
  readonly token: pulumi.Input<string>;
  readonly version: string;
  /** Flags for servers and agents, and how many agents may change at once. */
  readonly k3s: ClusterConfig["k3s"];
  /** K3s configuration of the servers, as YAML; readable only by root on the machine. Default: none. */
  readonly secretConfig: string | undefined;
  readonly observedNodes: readonly ObservedNode[];
  readonly provisioner: ClusterConfig["provisioner"];
  /** Whether a load balancer is in front of the nodes. */
  readonly isBalanced: boolean;
}

/** Installs K3s on all machines, group by group (`rolloutGroups`). @returns the nodes by machine name. */
export async function installNodes({
  made,
  servers,
  token,
  version,
  k3s,
  secretConfig,
  observedNodes,
  provisioner,
  isBalanced,
}: InstallNodesArgs): Promise<ReadonlyMap<string, K3sNode>> {
  const names = publicNames(servers);
  const argsOf = (machine: Machine) => {
    const { serverArgs, agentArgs } = k3s;
    return k3sArgsOf({ serverArgs: [...serverArgs, ...names], agentArgs }, machine);
  };

  // Wait for every machine: a failure of the last one must show before anything is installed on the first.
  const together = made.map(({ resource }) => resource);
  const common = { token, version, servers, together, provisioner, isBalanced };
  const [first] = made.filter(({ machine }) => machine === servers[0]) as [MadeMachine];
  const loss = lostData(observedNodes);
  if (loss !== undefined) pulumi.log.warn(loss);
  const start = new K3sStart(
    "start",
    {
      ...common,
      machine: first.machine,
      generation: first.resource.generation,
      args: argsOf(first.machine),
      ...given("secretConfig", secretConfig),
      ...given("lostCluster", noCluster(observedNodes)),
    },
    optionsOf(first),
  );
  await start.done;
  const nodes = new Map<string, K3sNode>();
  for (const group of rolloutGroups(observedNodes, k3s.agentsAtOnce ?? 1)) {
    for (const one of made.filter(({ machine }) => group.includes(machine.name))) {
      const { machine, observed, resource } = one;
      const node = observedNodes.find(({ name }) => name === machine.name) as ObservedNode;
      const own = isServer(machine)
        ? given("secretConfig", secretConfig)
        : given("lostCluster", lostCluster(node, observedNodes));
      const args = { ...common, ...own, args: argsOf(machine), machine, generation: resource.generation };
      // A stopped machine shows the state of its K3s only once it runs: it may have stopped in the middle of a change.
      const found = observed.state === "stopped" ? "its machine was stopped" : nodeFault(node.observed);
      nodes.set(
        machine.name,
        new K3sNode(machine.name, { ...args, ...given("found", found) }, optionsOf(one)),
      );
    }
    await Promise.all(group.map((name) => nodes.get(name)?.done));
  }
  return nodes;
}

/** Keeps the recorded state of a host that did not answer. */
const optionsOf = ({ observed }: MadeMachine): pulumi.ComponentResourceOptions =>
  observed.state === "unreachable" ? asRecorded : {};

const isServer = ({ role }: Machine): boolean => role === "server";

const given = <Key extends string>(key: Key, value: string | undefined) =>
  (value === undefined ? {} : { [key]: value }) as { [One in Key]?: string };
