import { after, before, describe } from "node:test";
import { type Checkout, copyCheckout } from "../../e2e/checkout.ts";
import { lossDuring } from "../../load.ts";
import { fault } from "../table.ts";

// What requests to the apps lose while a node is changed, stopped cleanly, or leaves. The only pods of two apps and the
// Ingress controller run on it.

const [server, agent] = ["192.168.42.110", "192.168.42.111"];

/** Requests of each kind, with and without keep-alive. */
const requests = 10_000;

let checkout: Checkout;

const kubectl = async (...args: string[]): Promise<string> =>
  (await checkout.succeeded(await checkout.run("kubectl", ...args))).stdout;

const lone = [
  ["default", "app1"],
  ["default", "app3"],
  ["kube-system", "traefik"],
] as const;

/** Gives every lone pod a successor, which takes its place once it is ready. */
async function restarted(): Promise<void> {
  for (const [namespace, name] of lone)
    await kubectl("rollout", "restart", `--namespace=${namespace}`, `deployment/${name}`);
  for (const [namespace, name] of lone)
    await kubectl("rollout", "status", `--namespace=${namespace}`, `deployment/${name}`, "--timeout=120s");
}

/** Lone pods run elsewhere than on these nodes. */
async function moveFrom(...nodes: readonly string[]): Promise<void> {
  await kubectl("cordon", ...nodes);
  await restarted();
  await kubectl("uncordon", ...nodes);
}

describe("requests while an agent is changed, stopped and leaves", { concurrency: false }, () => {
  before(async () => {
    checkout = await copyCheckout();
    await checkout.succeeded(await checkout.lab("up"));
  });
  after(async () => {
    await checkout.lab("down");
    await checkout.remove();
  });

  fault("a change of the agent's flags while requests come", async () => {
    await moveFrom("server");
    await checkout.edit("Pulumi.cluster.yaml", "agentArgs: []", "agentArgs: [--v=1]");
    return await lossDuring([server, agent], requests, async () =>
      checkout.succeeded(await checkout.lab("up", "cluster")),
    );
  });

  fault("a clean stop of the agent while requests come: cordon, rollout restart, drain, stop", async () => {
    await moveFrom("server");
    const k3s = (action: string) =>
      checkout.run("docker", "exec", "k3s-lab-cluster-agent", "systemctl", action, "k3s-agent");
    const outcome = await lossDuring([server, agent], requests, async () => {
      await kubectl("cordon", "agent");
      await restarted();
      await kubectl("drain", "agent", "--ignore-daemonsets", "--delete-emptydir-data", "--timeout=60s");
      await checkout.succeeded(await k3s("stop"));
    });
    await checkout.succeeded(await k3s("start"));
    await kubectl("wait", "--for=condition=Ready", "node/agent", "--timeout=60s");
    await kubectl("uncordon", "agent");
    return outcome;
  });

  fault("the agent leaves while requests come through the server", async () => {
    await moveFrom("server");
    await checkout.edit(
      "Pulumi.cluster.yaml",
      "    - {name: agent, role: agent, ip: 192.168.42.111, cpus: 2, memory: 1024}\n",
      "",
    );
    return await lossDuring([server], requests, async () =>
      checkout.succeeded(await checkout.lab("up", "cluster", "--replace")),
    );
  });
});

describe("requests while a server leaves", { concurrency: false }, () => {
  const servers = { server, two: "192.168.42.112", three: "192.168.42.113" };
  const machine = ([name, ip]: readonly string[]) =>
    `    - {name: ${name}, role: server, ip: ${ip}, memory: 2048}\n`;
  before(async () => {
    checkout = await copyCheckout();
    await checkout.edit(
      "Pulumi.cluster.yaml",
      `    - {name: agent, role: agent, ip: ${agent}, cpus: 2, memory: 1024}\n`,
      Object.entries(servers).slice(1).map(machine).join(""),
    );
    await checkout.succeeded(await checkout.lab("up"));
  });
  after(async () => {
    await checkout.lab("down");
    await checkout.remove();
  });

  fault("one of three servers leaves while requests come through the others", async () => {
    await moveFrom("server", "three");
    await checkout.edit("Pulumi.cluster.yaml", machine(["two", servers.two]), "");
    return await lossDuring([servers.server, servers.three], requests, async () =>
      checkout.succeeded(await checkout.lab("up", "cluster", "--replace")),
    );
  });
});
