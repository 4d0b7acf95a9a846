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

  const install = async (
    machine: Machine,
    args: readonly string[],
    server?: { machine: Machine; node: K3sNode },
  ) => {
    const { name } = machine;
    const observed = await observeMachine(pulumi.getStack(), name, provider);
    const { generation } = new VagrantMachine(name, { machine, provider, observed });
    const joins = server && { server: { ...server.machine, installation: server.node.installation } };
    return new K3sNode(name, { machine, generation, token: token.value, version, args, ...joins });
  };

  const [serverMachine, ...agents] = [...machines].sort((a, b) => b.role.localeCompare(a.role)) as [
    Machine,
    ...Machine[],
  ];
  const server = await install(serverMachine, k3s.serverArgs);
  const joined = await Promise.all(
    agents.map((machine) => install(machine, k3s.agentArgs, { machine: serverMachine, node: server })),
  );
  const { value: kubeconfig } = new Kubeconfig("kubeconfig", {
    serverIp: serverMachine.ip,
    installation: server.installation,
  });

  return {
    kubeconfig,
    apiServer: `https://${serverMachine.ip}:6443`,
    ingress: { addresses: machines.map(({ ip }) => ip), http: 80, https: 443 },
    nodes: pulumi.all([server, ...joined].map(({ details }) => details)),
  };
}
