import { readFileSync } from "node:fs";
import * as k8s from "@pulumi/kubernetes";
import * as pulumi from "@pulumi/pulumi";
import { appImageRef } from "../apps/web/image.ts";
import { NodeImages } from "./components/node-images.ts";
import { WebApp } from "./components/web-app.ts";
import { selectContext } from "./kubeconfig.ts";
import type { ClusterNode } from "./outputs.ts";
import { stackConfig } from "./stack-config.ts";

/** Part 2: the web app, deployed once for each app of the stack file, on whatever cluster it names. */
export default async function apps() {
  const { cluster, namespace, apps } = stackConfig("apps");

  let kubeconfig: pulumi.Input<string>;
  let nodes: readonly ClusterNode[] = [];
  if ("stack" in cluster) {
    const reference = new pulumi.StackReference("cluster", {
      name: `organization/${pulumi.getProject()}/${cluster.stack}`,
    });
    kubeconfig = reference.requireOutput("kubeconfig") as pulumi.Output<string>;
    nodes = (await reference.getOutputDetails("nodes")).value as readonly ClusterNode[];
  } else {
    kubeconfig = pulumi.secret(selectContext(readFileSync(cluster.kubeconfig, "utf8"), cluster.context));
  }

  const provider = new k8s.Provider("cluster", {
    kubeconfig,
    namespace,
    clusterIdentifier: pulumi.getStack(),
    deleteUnreachable: true,
  });
  const { image } = new NodeImages("web", { image: await appImageRef(), nodes });
  const made = apps.map(
    ({ name, host, replicas, version }) =>
      new WebApp(name, { image, host, replicas, version, namespace }, { provider }),
  );
  return { apps: made.map(({ host }, index) => ({ name: apps[index]?.name, host })) };
}
