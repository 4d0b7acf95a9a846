import type { Checkout } from "../../e2e/checkout.ts";

/** Deployments of one pod: without a successor it is missed as soon as it is evicted. */
const lone = [
  ["default", "app1"],
  ["default", "app3"],
  ["kube-system", "traefik"],
] as const;

/** Gives every lone pod a successor, which takes its place once it is ready. */
export async function restartLonePods({ output }: Checkout): Promise<void> {
  for (const [namespace, name] of lone)
    await output("kubectl", "rollout", "restart", `--namespace=${namespace}`, `deployment/${name}`);
  for (const [namespace, name] of lone) {
    const rollout = [`--namespace=${namespace}`, `deployment/${name}`, "--timeout=120s"];
    await output("kubectl", "rollout", "status", ...rollout);
  }
}

/** Lone pods run elsewhere than on these nodes. */
export async function moveLonePodsFrom(checkout: Checkout, ...nodes: readonly string[]): Promise<void> {
  await checkout.output("kubectl", "cordon", ...nodes);
  await restartLonePods(checkout);
  await checkout.output("kubectl", "uncordon", ...nodes);
}

/** What the nodes' kernels have tracked of a connection that came from a port of this computer. */
export const trackedOn =
  ({ run }: Checkout, ...machines: readonly string[]) =>
  async (_address: string, port: number): Promise<string> => {
    const look = ["grep", "--no-messages", `sport=${port} `, "/proc/net/nf_conntrack"];
    const found = await Promise.all(machines.map((machine) => run("docker", "exec", machine, ...look)));
    return found.map(({ stdout }, index) => `${machines[index]}: ${stdout || "not tracked"}`).join("\n");
  };
