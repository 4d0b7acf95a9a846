import { allMachines, type ClusterConfig, k3sVersion, stackFile } from "../model/config.ts";
import { chooseProvider, type Provider } from "../model/provider.ts";
import { observeLoadBalancer } from "./load-balancer.ts";
import type { MachineObservation } from "./machine-list.ts";
import { observeMachines } from "./machines.ts";
import {
  type ObservedNode,
  observeAllNodes,
  refuseImmutableFlags,
  refuseUnmounted,
  refuseVersionJump,
} from "./nodes.ts";
import { type Recorded, recordedOf } from "./recorded.ts";

/** The settings of a cluster, and its observed state before a run. */
export interface ClusterObservation {
  readonly provider: Provider;
  /** The K3s release: the stack file's, else the one that the cluster was made with. */
  readonly version: string;
  readonly recorded: Recorded;
  readonly observedMachines: ReadonlyMap<string, MachineObservation>;
  readonly observedNodes: readonly ObservedNode[];
  /** The fault of HAProxy to repair; undefined if there is none or it is unknown. */
  readonly wrongBalancer?: string | undefined;
}

/**
 * Observes a stack's machines and their K3s. Changes nothing.
 * @throws LabError (exit code 2) if K3s cannot change to the wanted release or flags; with 1 if a provider cannot be
 * queried.
 */
export async function observeCluster(stack: string, config: ClusterConfig): Promise<ClusterObservation> {
  const { machines, loadBalancer } = config;
  const recorded = await recordedOf(stack);
  const { provider } = await chooseProvider(config.provider, recorded.provider);
  const version = k3sVersion(config, recorded.k3sVersion);
  const needsPython = (role: string) => config.provisioner === "ansible" && role !== "loadbalancer";
  const wanted = allMachines(config).map((machine) => ({
    ...machine,
    programs: needsPython(machine.role) ? ["/usr/bin/python3"] : [],
  }));
  const observedMachines = await observeMachines(stack, provider, wanted);
  const isBalancing = loadBalancer && observedMachines.get(loadBalancer.name)?.state === "running";
  const [observedNodes, wrongBalancer] = await Promise.all([
    observeAllNodes(stack, machines, observedMachines),
    isBalancing ? observeLoadBalancer(stack, loadBalancer) : undefined,
  ]);
  refuseUnmounted(observedNodes);
  refuseVersionJump(stackFile(stack), version, observedNodes);
  const serverArgs = recorded.nodes?.filter(({ role }) => role === "server").map(({ args }) => args) ?? [];
  refuseImmutableFlags(stackFile(stack), config.k3s.serverArgs, serverArgs, observedNodes);
  return { provider, version, recorded, observedMachines, observedNodes, wrongBalancer };
}
