import { AppNamespace } from "./components/app-namespace.ts";
import { ingressClassOf, podImage, useCluster } from "./components/on-cluster.ts";
import { ServiceTypes } from "./components/service-types.ts";
import { VolumeKinds } from "./components/volume-kinds.ts";
import { WebApp } from "./components/web-app.ts";
import { webName } from "./model/concepts.ts";
import { stackConfig } from "./model/stack-config.ts";

/** Volume kinds and Service types side by side, with the same pods, on the cluster that the stack names. */
export default async function concepts() {
  const config = stackConfig("concepts");
  const { namespace } = config;
  const cluster = await useCluster(config);
  const { awaitAddress, child } = cluster;
  const image = await podImage("web", config.image, cluster);
  // Only this level admits hostPath, even read-only.
  const home = new AppNamespace(namespace, { isolated: false, podSecurity: "privileged" }, child);
  const inHome = { ...child, dependsOn: home };

  const { volumes, initContainer } = new VolumeKinds(
    "volumes",
    { namespace, image, static: config.static, dynamic: config.dynamic },
    inHome,
  );
  const ingressClass = ingressClassOf(config, cluster);
  const made = config.apps.map(
    (app) =>
      new WebApp(
        app.name,
        {
          ...app,
          tls: undefined,
          image,
          ingressClass,
          awaitAddress,
          volumes,
          initContainers: [initContainer],
          onOneNode: true,
        },
        inHome,
      ),
  );
  new ServiceTypes("services", { namespace, appName: webName, ...config.services }, inHome);
  return { urls: made.map(({ url }) => url) };
}
