import * as pulumi from "@pulumi/pulumi";
import { ClusterToken } from "./components/cluster-token.ts";
import { K3sNode } from "./components/k3s-node.ts";
import { Kubeconfig } from "./components/kubeconfig.ts";
import { VagrantMachine } from "./components/vagrant-machine.ts";
import { k3sVersion, type Machine } from "./config.ts";
import { observeMachine } from "./observe.ts";
import type { ClusterOutputs } from "./outputs.ts";
import { chooseProvider } from "./provider.ts";
import { stackConfig } from "./stack-config.ts";

/** Part 1: Vagrant machines with a K3s server and its agents. */
export default async function cluster(): Promise<ClusterOutputs> {
  const config = stackConfig("cluster");
  const { provider: wanted, machines, k3s } = config;
  const { provider } = await chooseProvider(wanted);
  const version = k3sVersion(config);
  const token = new ClusterToken("token");

  const [serverMachine, ...agentMachines] = [...machines].sort((a, b) => b.role.localeCompare(a.role)) as [
    Machine,
    ...Machine[],
  ];
  const make = async (machine: Machine) => {
    const observed = await observeMachine(pulumi.getStack(), machine.name, provider);
    return {
      machine,
      generation: new VagrantMachine(machine.name, { machine, provider, observed }).generation,
    };
  };
  const [serverMade, agentsMade] = [await make(serverMachine), await Promise.all(agentMachines.map(make))];

  // Agents are installed beside their server and wait for it: together they are Ready sooner than one after the other.
  const common = { token: token.value, version };
  const server = new K3sNode(serverMachine.name, { ...serverMade, ...common, args: k3s.serverArgs });
  const agents = agentsMade.map(
    (made) => new K3sNode(made.machine.name, { ...made, ...common, args: k3s.agentArgs, server: serverMade }),
  );
  const apiServer = `https://${serverMachine.ip}:6443`;
  const { value: kubeconfig } = new Kubeconfig("kubeconfig", {
    server: apiServer,
    command: '"$K3S_LAB_ROOT/vagrant/k3s.sh" kubeconfig',
    environment: { NODE_IP: serverMachine.ip },
    installation: server.installation,
  });

  return {
    kubeconfig,
    apiServer,
    ingress: { addresses: machines.map(({ ip }) => ip), http: 80, https: 443 },
    nodes: pulumi.all([server, ...agents].map(({ details }) => details)),
  };
}
