import * as pulumi from "@pulumi/pulumi";
import { ClusterToken } from "./components/cluster-token.ts";
import { installNodes } from "./components/install-nodes.ts";
import { ClusterServers, type K3sNode, serverList } from "./components/k3s-node.ts";
import { Kubeconfig } from "./components/kubeconfig.ts";
import { LabMachine } from "./components/lab-machine.ts";
import { LoadBalancer } from "./components/load-balancer.ts";
import { root } from "./lib/paths.ts";
import { ingressAddresses, servedAt } from "./model/cluster-plan.ts";
import { type LoadBalancerMachine, type Machine, stackFile } from "./model/config.ts";
import { haproxyConfig, traefikOf } from "./model/load-balancer.ts";
import type { ClusterOutputs } from "./model/outputs.ts";
import { readServerSecrets } from "./model/server-secrets.ts";
import { stackConfig } from "./model/stack-config.ts";
import { observeCluster } from "./observe/cluster.ts";
import { evictions, refuseUnasked } from "./observe/evictions.ts";
import { kubeconfigCopy, observeKubeconfig } from "./observe/kubeconfig.ts";
import type { MachineObservation } from "./observe/machine-list.ts";
import { certificatesOf, isServerListMissing } from "./observe/nodes.ts";
import { clusterPreconditions, refuseUnlessMet } from "./observe/preconditions.ts";

/** Part 1: machines with K3s servers and agents. */
export default async function cluster(): Promise<ClusterOutputs> {
  const stack = pulumi.getStack();
  const config = stackConfig("cluster");
  const { machines, network, k3s, loadBalancer, provisioner } = config;
  const observed = await observeCluster(stack, config);
  refuseUnlessMet(clusterPreconditions(config, observed));
  refuseUnasked(stack, evictions(config, observed), {
    isPreview: pulumi.runtime.isDryRun(),
    warn: pulumi.log.warn,
  });
  const { provider, version, observedMachines, observedNodes, wrongBalancer } = observed;
  const secretConfig = await readServerSecrets(k3s.serverSecrets, stackFile(stack), root);

  const { value: token } = new ClusterToken("token");
  const make = <One extends Machine | LoadBalancerMachine>(machine: One) => {
    const observed = observedMachines.get(machine.name) as MachineObservation;
    return {
      machine,
      observed,
      resource: new LabMachine(machine.name, { machine, provider, network, observed }),
    };
  };
  const front = [loadBalancer ?? []].flat().map((machine) => {
    const { observed, resource } = make(machine);
    const args = { machine: resource, observed, config: haproxyConfig(config), found: wrongBalancer };
    return new LoadBalancer(machine.name, args);
  });
  const made = machines.map(make);
  const servers = machines.filter(({ role }) => role === "server") as [Machine, ...Machine[]];
  const isBalanced = traefikOf(config) === "every-node";
  const nodes = await installNodes({
    ...{ made, servers, token, version, k3s, secretConfig, observedNodes, provisioner, isBalanced },
  });
  const all = machines.map(({ name }) => nodes.get(name) as K3sNode);
  new ClusterServers("servers", { servers, nodes: all, isMissing: isServerListMissing(stack) });
  const asked = [loadBalancer ?? [], servers].flat();
  const urls = asked.map((one) => `https://${servedAt(one)}:6443`) as [string, ...string[]];
  const { value: kubeconfig } = new Kubeconfig(
    "kubeconfig",
    {
      servers: urls,
      command: '"$K3S_LAB_ROOT/vagrant/k3s.sh" kubeconfig',
      environment: { NODE_NAME: "", SERVERS: serverList(servers) },
      installation: (nodes.get(servers[0].name) as K3sNode).installation,
      observed: await observeKubeconfig(kubeconfigCopy(stack), certificatesOf(observedNodes)),
    },
    { dependsOn: front },
  );
  return {
    kubeconfig,
    apiServer: urls[0],
    ingress: { addresses: ingressAddresses(config), http: 80, https: 443 },
    nodes: pulumi.all(all.map(({ details }) => details)),
  };
}
