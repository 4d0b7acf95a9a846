import * as pulumi from "@pulumi/pulumi";
import { publicNames, servedAt } from "./cluster-plan.ts";
import { ClusterToken } from "./components/cluster-token.ts";
import { K3sNode, serverList } from "./components/k3s-node.ts";
import { Kubeconfig } from "./components/kubeconfig.ts";
import { asRecorded, LabMachine } from "./components/lab-machine.ts";
import { k3sVersion, type Machine } from "./config.ts";
import { type MachineObservation, observeMachines } from "./observe.ts";
import type { ClusterOutputs } from "./outputs.ts";
import { chooseProvider } from "./provider.ts";
import { stackConfig } from "./stack-config.ts";

/** Part 1: machines with K3s servers and agents. */
export default async function cluster(): Promise<ClusterOutputs> {
  const config = stackConfig("cluster");
  const { provider: wanted, machines, network, k3s } = config;
  const { provider } = await chooseProvider(wanted);
  const version = k3sVersion(config);
  const { value: token } = new ClusterToken("token");

  const now = new Date().toISOString();
  const seen = await observeMachines(pulumi.getStack(), provider, machines, now);
  const made = machines.map((machine) => {
    const observed = seen.get(machine.name) as MachineObservation;
    const { state, reason } = observed;
    if (state === "unreachable")
      pulumi.log.warn(`the host ${machine.name} ${reason}; nothing changes on it in this run`);
    const resource = new LabMachine(machine.name, { machine, provider, network, observed });
    return { machine, observed, resource, options: state === "unreachable" ? asRecorded : {} };
  });
  const servers = machines.filter(isServer) as [Machine, ...Machine[]];
  // A server that is made anew joins the others: the cluster is as old as its oldest one.
  const [oldest = now] = made
    .filter(({ machine }) => isServer(machine))
    .map(({ observed }) => observed.generation)
    .sort();

  const serverArgs = [...k3s.serverArgs, ...publicNames(servers)];

  // Nodes are installed side by side, agents wait for a server: together they are Ready sooner than one after the other.
  // But only when every machine is there: a fault of the last one is known before anything is installed on the first.
  const together = made.map(({ resource }) => resource);
  const nodes = made.map(({ machine, resource: { generation }, options }) => {
    const common = { machine, generation, token, version, servers, together };
    const own = isServer(machine) ? { args: serverArgs } : { args: k3s.agentArgs, cluster: oldest };
    return new K3sNode(machine.name, { ...common, ...own }, options);
  });
  const [apiServer, ...otherServers] = servers.map((server) => `https://${servedAt(server)}:6443`) as [
    string,
    ...string[],
  ];
  const { value: kubeconfig } = new Kubeconfig("kubeconfig", {
    servers: [apiServer, ...otherServers],
    command: '"$K3S_LAB_ROOT/vagrant/k3s.sh" kubeconfig',
    environment: { SERVERS: serverList(servers) },
    installation: (nodes[machines.indexOf(servers[0])] as K3sNode).installation,
  });

  return {
    kubeconfig,
    apiServer,
    ingress: { addresses: machines.map(servedAt), http: 80, https: 443 },
    nodes: pulumi.all(nodes.map(({ details }) => details)),
  };
}

const isServer = ({ role }: Machine): boolean => role === "server";
