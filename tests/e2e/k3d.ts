import assert from "node:assert/strict";
import type { Checkout } from "./checkout.ts";
import { ask } from "./host.ts";

// What tests of the stacks k3d and apps-k3d have in common.

/** Where the Ingress controller of the cluster answers. */
export const ingress = "127.0.0.1:8081";
/** Host names of the apps in `dev`; any name that nobody has leads to app3. */
export const devHosts = ["app1.dev.localhost", "app2.dev.localhost", "any.other"] as const;

/** Every app of the stack apps-k3d, from outside. */
export async function appsAnswer(): Promise<void> {
  for (const [host, app, namespace] of [
    ["app1.dev.localhost", "app1", "dev"],
    ["app2.dev.localhost", "app2", "dev"],
    ["anything.else", "app3", "dev"],
    ["app1.staging.localhost", "app1", "staging"],
    ["app2.staging.localhost", "app2", "staging"],
    ["app3.staging.localhost", "app3", "staging"],
  ] as const) {
    const answer = await ask(ingress, host);
    assert.deepEqual([answer.app, answer.namespace], [app, namespace], host);
  }
}

/** `kubectl` by the context of a stack. */
export const kubectlOf =
  ({ output }: Checkout, stack: string) =>
  (...args: string[]): Promise<string> =>
    output("kubectl", "--context", `k3s-lab-${stack}`, ...args);

/** The apps in `dev` and the Ingress controller of the cluster k3d run elsewhere than on its server: on its one agent. */
export async function moveToAgent(checkout: Checkout): Promise<void> {
  const kubectl = kubectlOf(checkout, "k3d");
  await kubectl("cordon", "k3d-k3d-server-0");
  const deployments = [
    ["dev", "app1"],
    ["dev", "app2"],
    ["dev", "app3"],
    ["kube-system", "traefik"],
  ] as const;
  for (const action of [["restart"], ["status", "--timeout=120s"]])
    for (const [namespace, name] of deployments)
      await kubectl("rollout", ...action, `deployment/${name}`, "--namespace", namespace);
  await kubectl("uncordon", "k3d-k3d-server-0");
}

/** What k3d makes in Docker, of any cluster: containers, networks, and all volumes. */
export async function inDocker({ output }: Checkout): Promise<string[]> {
  const filter = ["--filter", "label=app=k3d"];
  return [
    await output("docker", "ps", "--all", "--format", "container {{.Names}}", ...filter),
    await output("docker", "network", "ls", "--format", "network {{.Name}}", ...filter),
    await output("docker", "volume", "ls", "--format", "volume {{.Name}}"),
  ].flatMap((text) => text.split("\n").filter(Boolean));
}
