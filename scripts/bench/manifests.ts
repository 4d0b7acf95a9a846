import * as pulumi from "@pulumi/pulumi";
import { stringify } from "yaml";
import type { AppsConfig } from "../../stacks/model/config.ts";

/**
 * The namespaces and apps of a stack file as YAML for `kubectl apply`: the very objects that Pulumi would create, in an
 * order in which nothing is missing. Pulumi's engine is replaced in this process by a recorder, so nothing else may
 * deploy from it.
 * @param image name of the apps' image.
 */
export async function renderManifests(
  {
    namespaces,
    apps,
    ingress,
    ingressNamespace,
  }: Pick<AppsConfig, "namespaces" | "apps" | "ingress" | "ingressNamespace">,
  image: string,
): Promise<string> {
  const objects: Record<string, unknown>[] = [];
  await pulumi.runtime.setMocks({
    newResource: ({ type, name, inputs }) => {
      if (type.startsWith("kubernetes:")) objects.push(inputs);
      return { id: name, state: inputs };
    },
    call: ({ inputs }) => inputs,
  });
  const { AppNamespace } = await import("../../stacks/components/app-namespace.ts");
  const { WebApp } = await import("../../stacks/components/web-app.ts");
  for (const { name, ...args } of namespaces) new AppNamespace(name, { ...args, ingress, ingressNamespace });
  await pulumi.runtime.disconnect();
  // Nobody writes a certificate by hand.
  for (const { name: appName, namespace, tls: _, ...args } of apps)
    new WebApp(`${namespace}-${appName}`, { ...args, appName, namespace, image, ingressClass: ingress });
  await pulumi.runtime.disconnect();
  return objects.map((object) => stringify(object)).join("---\n");
}
