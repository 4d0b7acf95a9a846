import { after, before, describe } from "node:test";
import { type Checkout, copyCheckout } from "../../e2e/checkout.ts";
import { lossDuring } from "../../load.ts";
import { fault } from "../table.ts";
import { moveLonePodsFrom } from "./lone-pods.ts";

// What requests to the apps lose while a server leaves. The only pods of two apps and the Ingress controller run on it.

const [server, agent] = ["192.168.42.110", "192.168.42.111"];

/** Requests of each kind, with and without keep-alive. */
const requests = 10_000;

describe("requests while a server leaves", { concurrency: false }, () => {
  let checkout: Checkout;
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
    await moveLonePodsFrom(checkout, "server", "three");
    await checkout.edit("Pulumi.cluster.yaml", machine(["two", servers.two]), "");
    return await lossDuring([servers.server, servers.three], requests, async () =>
      checkout.succeeded(await checkout.lab("up", "cluster", "--replace")),
    );
  });
});
