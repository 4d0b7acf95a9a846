import { after, before, describe } from "node:test";
import { type Checkout, copyCheckout } from "../../e2e/checkout.ts";
import { lossDuring } from "../../load.ts";
import { steps } from "../../steps.ts";
import { moveLonePodsFrom, trackedOn } from "./lone-pods.ts";

// What requests to the apps lose while servers leave. The only pods of two apps and the Ingress controller run on one of them.

const [server, agent] = ["192.168.42.110", "192.168.42.111"];

/** Requests of each kind, with and without keep-alive. */
const requests = 10_000;

describe("requests while servers leave", { concurrency: false }, () => {
  const { fault } = steps();
  let checkout: Checkout;
  const leaving = ["two", "three"];
  const machine = (name: string) =>
    `    - {name: ${name}, role: server, ip: 192.168.42.11${leaving.indexOf(name) + 2}, memory: 2048}\n`;
  before(async () => {
    checkout = await copyCheckout();
    await checkout.edit(
      "Pulumi.cluster.yaml",
      `    - {name: agent, role: agent, ip: ${agent}, cpus: 2, memory: 1024}\n`,
      leaving.map(machine).join(""),
    );
    await checkout.succeeded(await checkout.lab("up"));
  });
  after(async () => {
    await checkout.lab("down");
    await checkout.remove();
  });

  fault("two of three servers leave under requests through the remaining one", async () => {
    await moveLonePodsFrom(checkout, "server", "three");
    for (const one of leaving) await checkout.edit("Pulumi.cluster.yaml", machine(one), "");
    const change = async () => checkout.succeeded(await checkout.lab("up", "cluster", "--replace"));
    return await lossDuring([server], requests, change, trackedOn(checkout, "k3s-lab-cluster-server"));
  });
});
