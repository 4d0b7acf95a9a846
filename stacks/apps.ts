import * as k8s from "@pulumi/kubernetes";
import * as pulumi from "@pulumi/pulumi";
import { appImageRef } from "../apps/web/image.ts";
import { AppNamespace } from "./components/app-namespace.ts";
import { NodeImages } from "./components/node-images.ts";
import { Traefik } from "./components/traefik.ts";
import { WebApp } from "./components/web-app.ts";
import { managedIngress, resourceName } from "./config.ts";
import { foreignKubeconfig } from "./foreign-cluster.ts";
import { labCluster } from "./lab-cluster.ts";
import { stackConfig } from "./stack-config.ts";

/** Part 2: the web app, deployed once for each app of the stack file, on whatever cluster it names. */
export default async function apps() {
  const config = stackConfig("apps");
  const { cluster, namespace, ingress, ingressNamespace } = config;
  const stack = pulumi.getStack();
  const own = "stack" in cluster;
  const { kubeconfig, nodes } = own
    ? await labCluster(cluster.stack, ingress)
    : { kubeconfig: pulumi.secret(await foreignKubeconfig(cluster, { stack, ingress })), nodes: [] };

  const provider = new k8s.Provider("cluster", {
    kubeconfig,
    namespace,
    // Another context is another cluster: what is on the old one is not on it.
    clusterIdentifier: own ? stack : `${stack}/${cluster.context}`,
    deleteUnreachable: true,
    // Seconds for one answer. Whoever asks first for the API's description waits until it is put together: where the
    // processor is emulated, for longer than the usual 32.
    kubeClientSettings: { timeout: 300 },
  });
  const { image } = new NodeImages("web", {
    image: config.image ?? (await appImageRef()),
    nodes: config.image === undefined ? nodes : [],
  });
  const namespaces = new Map(
    config.namespaces.map(({ name, ...args }) => [
      name,
      new AppNamespace(name, { ...args, ingressNamespace }, { provider }),
    ]),
  );
  const ingressClass =
    ingress === managedIngress ? new Traefik("traefik", {}, { provider }).ingressClass : ingress;
  // K3s's own Traefik gives every Ingress an address; of any other controller that is not known.
  const awaitAddress = own && ingress === "traefik";
  const made = config.apps.map((app) => {
    const { name: appName, ...args } = app;
    const home = namespaces.get(app.namespace);
    return new WebApp(
      resourceName(config, app),
      { ...args, appName, namespace: home?.name ?? app.namespace, image, ingressClass, awaitAddress },
      { provider, dependsOn: home ?? [] },
    );
  });
  const describe = ({ host }: WebApp, index: number) => {
    const { name, namespace } = config.apps[index] ?? {};
    return { name, namespace, host };
  };
  return { apps: made.map(describe) };
}
