import * as pulumi from "@pulumi/pulumi";
import { joinAgents } from "./components/k3d-agents.ts";
import { K3dCluster } from "./components/k3d-cluster.ts";
import { k3dScript } from "./components/k3d-command.ts";
import { K3dRegistry } from "./components/k3d-registry.ts";
import { Kubeconfig } from "./components/kubeconfig.ts";
import { readHostSettings } from "./lib/host-settings.ts";
import { root } from "./lib/paths.ts";
import { publishedPort, readK3dFile } from "./model/k3d-file.ts";
import { clusterIdentity } from "./model/k3d-nodes.ts";
import type { ClusterOutputs } from "./model/outputs.ts";
import { stackConfig } from "./model/stack-config.ts";
import { chooseK3dImages, observeK3d } from "./observe/k3d-host.ts";
import { refuseUnlessReady } from "./observe/k3d-ready.ts";
import { kubeconfigCopy, observeKubeconfig } from "./observe/kubeconfig.ts";
import { k3dPreconditions, refuseUnlessMet } from "./observe/preconditions.ts";

/** Part 3: the same kind of cluster in Docker, with k3d. */
export default async function k3d(): Promise<ClusterOutputs> {
  const stack = pulumi.getStack();
  const file = await readK3dFile(stackConfig("k3d").config, root);
  const now = new Date().toISOString();
  const observed = await observeK3d(stack, file, now);
  refuseUnlessMet(await k3dPreconditions(file, observed, now));
  const images = chooseK3dImages(file, observed.containers, await readHostSettings());
  await refuseUnlessReady(stack, file, images, observed);

  const { create } = file.registries ?? {};
  const registry = create && new K3dRegistry("registry", { file, registry: create, images, observed });
  // Named after the stack, so that another name in k3d's config replaces the cluster instead of adding one.
  const cluster = new K3dCluster(
    stack,
    { file, images, identity: await clusterIdentity(file), observed },
    { dependsOn: registry ? [registry.command] : [] },
  );
  const { hostIP, hostPort } = file.kubeAPI;
  const apiServer = `https://${hostIP}:${hostPort}`;
  const { value: kubeconfig } = new Kubeconfig("kubeconfig", {
    servers: [apiServer],
    command: k3dScript("kubeconfig"),
    environment: { K3D_CLUSTER: file.metadata.name },
    installation: cluster.generation,
    observed: await observeKubeconfig(kubeconfigCopy(stack), observed.certificates),
  });
  const agents = await joinAgents(stack, file, cluster, observed, now);

  return {
    kubeconfig,
    clusterId: cluster.id,
    apiServer,
    ingress: { addresses: [hostIP], http: publishedPort(file, 80), https: publishedPort(file, 443) },
    nodes: pulumi.all([cluster.details, pulumi.all(agents)]).apply((all) => all.flat()),
  };
}
