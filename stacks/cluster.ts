import { existsSync } from "node:fs";
import { join } from "node:path";
import * as pulumi from "@pulumi/pulumi";
import { labDir, root } from "../scripts/paths.ts";
import { recordedOf } from "../scripts/recorded.ts";
import { publicNames, servedAt } from "./cluster-plan.ts";
import { ClusterToken } from "./components/cluster-token.ts";
import { ClusterServers, K3sNode, K3sStart, serverList } from "./components/k3s-node.ts";
import { Kubeconfig } from "./components/kubeconfig.ts";
import { asRecorded, LabMachine } from "./components/lab-machine.ts";
import { k3sVersion, type Machine, stackFile } from "./config.ts";
import { type MachineObservation, observeMachines } from "./observe.ts";
import {
  kubeconfigCopy,
  lostCluster,
  noCluster,
  observeKubeconfig,
  observeNodes,
  refuseVersionJump,
  type SeenNode,
  seenOf,
  turns,
  wrongWith,
} from "./observe-nodes.ts";
import type { ClusterOutputs } from "./outputs.ts";
import { chooseProvider } from "./provider.ts";
import { readServerSecrets } from "./server-secrets.ts";
import { stackConfig } from "./stack-config.ts";

/** Part 1: machines with K3s servers and agents. */
export default async function cluster(): Promise<ClusterOutputs> {
  const stack = pulumi.getStack();
  const config = stackConfig("cluster");
  const { provider: wanted, machines, network, k3s } = config;
  const recorded = await recordedOf(stack);
  const { provider } = await chooseProvider(wanted, recorded.provider);
  const version = k3sVersion(config, recorded.k3sVersion);
  const now = new Date().toISOString();
  const seen = await observeMachines(stack, provider, machines, now);
  const nodesSeen = await seenNodes(stack, machines, seen);
  refuseVersionJump(stackFile(stack), version, nodesSeen);
  const secretConfig = await readServerSecrets(k3s.serverSecrets, stackFile(stack), root);

  const { value: token } = new ClusterToken("token");
  const made = machines.map((machine) => {
    const observed = seen.get(machine.name) as MachineObservation;
    const { state, reason } = observed;
    if (state === "unreachable")
      pulumi.log.warn(`the host ${machine.name} ${reason}; nothing changes on it in this run`);
    const resource = new LabMachine(machine.name, { machine, provider, network, observed });
    return { machine, observed, resource, options: state === "unreachable" ? asRecorded : {} };
  });
  const servers = machines.filter(isServer) as [Machine, ...Machine[]];

  const serverArgs = [...k3s.serverArgs, ...publicNames(servers)];

  // Only when every machine is there: a fault of the last one is known before anything is installed on the first.
  const together = made.map(({ resource }) => resource);
  const common = { token, version, servers, together };
  const [first] = made.filter(({ machine }) => machine === servers[0]) as [(typeof made)[number]];
  const start = new K3sStart(
    "start",
    {
      ...common,
      machine: first.machine,
      generation: first.resource.generation,
      args: serverArgs,
      ...given("secretConfig", secretConfig),
      ...given("lostCluster", noCluster(nodesSeen)),
    },
    first.options,
  );
  await start.done;
  const nodes = new Map<string, K3sNode>();
  for (const group of turns(nodesSeen, k3s.agentsAtOnce ?? 1)) {
    for (const { machine, observed, resource, options } of made.filter(({ machine }) =>
      group.includes(machine.name),
    )) {
      const one = nodesSeen.find(({ name }) => name === machine.name) as SeenNode;
      const own = isServer(machine)
        ? { args: serverArgs, ...given("secretConfig", secretConfig) }
        : { args: k3s.agentArgs, ...given("lostCluster", lostCluster(one, nodesSeen)) };
      const args = { ...common, ...own, machine, generation: resource.generation };
      // What K3s is like on a machine that was stopped shows only once it runs: it may have stopped in the middle of a change.
      const found = observed.state === "stopped" ? "its machine was stopped" : wrongWith(one.seen);
      nodes.set(machine.name, new K3sNode(machine.name, { ...args, ...given("found", found) }, options));
    }
    await Promise.all(group.map((name) => nodes.get(name)?.done));
  }
  const all = machines.map(({ name }) => nodes.get(name) as K3sNode);
  new ClusterServers("servers", {
    servers,
    nodes: all,
    isMissing: !existsSync(join(labDir, stack, "servers")),
  });
  const [apiServer, ...otherServers] = servers.map((server) => `https://${servedAt(server)}:6443`) as [
    string,
    ...string[],
  ];
  const { value: kubeconfig } = new Kubeconfig("kubeconfig", {
    servers: [apiServer, ...otherServers],
    command: '"$K3S_LAB_ROOT/vagrant/k3s.sh" kubeconfig',
    environment: { NODE_NAME: "", SERVERS: serverList(servers) },
    installation: (nodes.get(servers[0].name) as K3sNode).installation,
    observed: await observeKubeconfig(
      kubeconfigCopy(stack),
      nodesSeen.flatMap(({ seen: { certificate } }) => certificate ?? []),
    ),
  });

  return {
    kubeconfig,
    apiServer,
    ingress: { addresses: machines.map(servedAt), http: 80, https: 443 },
    nodes: pulumi.all(all.map(({ details }) => details)),
  };
}

const isServer = ({ role }: Machine): boolean => role === "server";

/** K3s on the machines, of those that run; what others hold nobody knows. */
async function seenNodes(
  stack: string,
  machines: readonly Machine[],
  seen: ReadonlyMap<string, MachineObservation>,
): Promise<readonly SeenNode[]> {
  const stateOf = ({ name }: Machine) => seen.get(name)?.state;
  const looked = await observeNodes(
    stack,
    machines.filter((machine) => stateOf(machine) === "running"),
  );
  return machines.map((machine) => ({
    name: machine.name,
    role: machine.role,
    isMachineThere: stateOf(machine) !== "absent",
    seen: seenOf(looked, machine.name),
  }));
}

/** An optional property, left out where there is no value. */
const given = <Key extends string>(key: Key, value: string | undefined) =>
  (value === undefined ? {} : { [key]: value }) as { [One in Key]?: string };
