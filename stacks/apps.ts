import * as k8s from "@pulumi/kubernetes";
import * as pulumi from "@pulumi/pulumi";
import { AppNamespace } from "./components/app-namespace.ts";
import { NodeImages } from "./components/node-images.ts";
import { Traefik } from "./components/traefik.ts";
import { WebApp } from "./components/web-app.ts";
import { labId } from "./lib/lab-id.ts";
import { appImageRef } from "./model/app-image.ts";
import { managedIngress, resourceName } from "./model/config.ts";
import { stackConfig } from "./model/stack-config.ts";
import { externalCluster } from "./observe/external-cluster.ts";
import { observeImages } from "./observe/images.ts";
import { labCluster } from "./observe/lab-cluster.ts";
import { readOwnState } from "./observe/own-state.ts";
import { labelling } from "./observe/ownership.ts";
import { appsPreconditions, refuseUnlessMet } from "./observe/preconditions.ts";

/** Part 2: the web app, deployed once for each app of the stack file, on whatever cluster it names. */
export default async function apps() {
  const config = stackConfig("apps");
  const { cluster, namespace, ingress, ingressNamespace } = config;
  const owner = { lab: await labId(), stack: pulumi.getStack() };
  const own = "stack" in cluster;
  const { kubeconfig, identity, nodes } = own
    ? await labCluster(cluster.stack, config, owner)
    : { ...(await externalCluster(cluster, config, owner)), nodes: [] };
  refuseUnlessMet(appsPreconditions(config, own ? undefined : identity));
  const state = await readOwnState(owner.stack);

  const provider = new k8s.Provider("cluster", {
    kubeconfig: pulumi.secret(kubeconfig),
    namespace,
    // Another cluster, whatever it is called: what is on the old one is not on it.
    clusterIdentifier: identity,
    // What was on a cluster of the lab's goes with it. Of any other nobody knows whether it is gone or stopped.
    ...(own ? { deleteUnreachable: true } : {}),
    // Seconds for one answer. Whoever asks first for the API's description waits until it is put together: where the
    // processor is emulated, for longer than the usual 32.
    kubeClientSettings: { timeout: 300 },
  });
  const child = { provider, transformations: [labelling(owner, state)] };
  const image = config.image ?? (await appImageRef());
  const images = new NodeImages("web", {
    image,
    nodes: config.image === undefined ? await observeImages("web", image, nodes, state) : [],
  });
  const namespaces = new Map(
    config.namespaces.map(({ name, ...args }) => [
      name,
      new AppNamespace(name, { ...args, ingress, ingressNamespace }, child),
    ]),
  );
  const ingressClass = ingress === managedIngress ? new Traefik("traefik", {}, child).ingressClass : ingress;
  // K3s's own Traefik gives every Ingress an address; of any other controller that is not known.
  const awaitAddress = own && ingress === "traefik";
  const made = config.apps.map((app) => {
    const { name: appName, ...args } = app;
    const home = namespaces.get(app.namespace);
    return new WebApp(
      resourceName(app),
      {
        ...args,
        appName,
        namespace: home?.name ?? app.namespace,
        image: images.image,
        ingressClass,
        awaitAddress,
      },
      { ...child, dependsOn: home ?? [] },
    );
  });
  const describe = ({ host }: WebApp, index: number) => {
    const { name, namespace } = config.apps[index] ?? {};
    return { name, namespace, host };
  };
  return { apps: made.map(describe) };
}
