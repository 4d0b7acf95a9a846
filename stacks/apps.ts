import { AppNamespace } from "./components/app-namespace.ts";
import { certificatesFor } from "./components/certificate-authority.ts";
import { ingressClassOf, podImage, progressDeadline, useCluster } from "./components/on-cluster.ts";
import { WebApp } from "./components/web-app.ts";
import { resourceName } from "./model/config.ts";
import { stackConfig } from "./model/stack-config.ts";

/** Part 2: deploys the web app once for each app in the stack file, on the cluster that the file names. */
export default async function apps() {
  const config = stackConfig("apps");
  const { ingress, ingressNamespace } = config;
  const cluster = await useCluster(config);
  const { awaitAddress, child } = cluster;
  const image = await podImage("web", config.image, cluster);
  const namespaces = new Map(
    config.namespaces.map(({ name, ...args }) => [
      name,
      new AppNamespace(name, { ...args, ingress, ingressNamespace }, child),
    ]),
  );
  const ingressClass = ingressClassOf(config, cluster);
  const progressDeadlineSeconds = progressDeadline([config.image], cluster);
  const issue = certificatesFor(config.apps, cluster);
  const made = config.apps.map((app) => {
    const { name: appName, ...args } = app;
    const home = namespaces.get(app.namespace);
    const namespace = home?.name ?? app.namespace;
    return new WebApp(
      resourceName(app),
      {
        ...args,
        appName,
        namespace,
        tls: issue(app, namespace),
        image,
        ingressClass,
        awaitAddress,
        progressDeadlineSeconds,
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
