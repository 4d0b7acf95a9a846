import * as pulumi from "@pulumi/pulumi";
import { root } from "../scripts/paths.ts";
import { K3dAgent } from "./components/k3d-agent.ts";
import { K3dCluster } from "./components/k3d-cluster.ts";
import { Kubeconfig } from "./components/kubeconfig.ts";
import { agentsOf, publishedPort, readK3dFile, serversOf } from "./k3d-file.ts";
import { chooseK3dImages, refuseUnlessReady } from "./k3d-host.ts";
import { observeContainers } from "./observe.ts";
import type { ClusterOutputs } from "./outputs.ts";
import { stackConfig } from "./stack-config.ts";

/** Part 3: the same kind of cluster in Docker, by k3d. */
export default async function k3d(): Promise<ClusterOutputs> {
  const stack = pulumi.getStack();
  const file = await readK3dFile(stackConfig("k3d").config, root);
  const { name: clusterName } = file.metadata;
  const images = chooseK3dImages(file);
  const observed = await observeContainers(stack, serversOf(file));
  await refuseUnlessReady(file, images);

  const cluster = new K3dCluster(clusterName, { file, images, observed });
  const joined = await Promise.all(
    agentsOf(file).map(async (node) => {
      const observed = await observeContainers(stack, [node.name]);
      return new K3dAgent(node.name, { node, cluster, clusterName, observed }).details;
    }),
  );
  const { hostIP, hostPort } = file.kubeAPI;
  const apiServer = `https://${hostIP}:${hostPort}`;
  const { value: kubeconfig } = new Kubeconfig("kubeconfig", {
    servers: [apiServer],
    command: '"$K3S_LAB_ROOT/stacks/k3d/k3d.sh" kubeconfig',
    environment: { K3D_CLUSTER: clusterName },
    installation: cluster.generation,
  });

  return {
    kubeconfig,
    apiServer,
    ingress: { addresses: [hostIP], http: publishedPort(file, 80), https: publishedPort(file, 443) },
    nodes: pulumi.all([cluster.details, pulumi.all(joined)]).apply((all) => all.flat()),
  };
}
