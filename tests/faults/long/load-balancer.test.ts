import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { setTimeout as pause } from "node:timers/promises";
import { parse } from "yaml";
import { type LoadResult, startRequests, type Target } from "../../../scripts/load/requests.ts";
import { type Checkout, copyCheckout } from "../../e2e/checkout.ts";
import { lossesOf } from "../../load.ts";
import { fault } from "../table.ts";

// What requests through the load balancer lose when a machine behind it loses its power, one after the other: each sends one
// every 50 ms, by new connections and by ones that are kept, to apps with a pod on several nodes and to the API server.

const balancer = "192.168.43.10";
const nodes = { s1: "192.168.43.11", s2: "192.168.43.12", s3: "192.168.43.13", a1: "192.168.43.21" } as const;
const hosts = ["app1.com", "app2.com", "any.other"];
const rate = 20;

/** Kinds of requests, by what they are called in the table. */
type Kinds = Readonly<Record<string, Kind>>;

interface Kind {
  readonly targets: readonly Target[];
  readonly keepAlive?: boolean;
  readonly status?: number;
  /** Seconds in which HAProxy notices that a machine is lost: checks a second apart, each given up after one. */
  readonly noticed: number;
}

describe("a load balancer in front of three servers and an agent", { concurrency: false }, () => {
  let checkout: Checkout;
  let kinds: Kinds;
  const machine = (name: string) => `k3s-lab-cluster-ha-${name}`;
  const up = async () => checkout.succeeded(await checkout.lab("up", "cluster-ha", "apps-ha"));

  before(async () => {
    checkout = await copyCheckout();
    await up();
    const through = (address: string) => hosts.map((host) => ({ address, host }));
    const kubeconfig = parse(
      await readFile(join(checkout.directory, ".lab/cluster-ha/kubeconfig"), "utf8"),
    ) as { clusters: [{ cluster: { server: string; "certificate-authority-data": string } }] };
    const { cluster } = kubeconfig.clusters[0];
    assert.equal(cluster.server, `https://${balancer}:6443`);
    const api = {
      ...{ address: `${balancer}:6443`, host: `${balancer}:6443`, path: "/readyz" },
      authority: Buffer.from(cluster["certificate-authority-data"], "base64").toString(),
    };
    kinds = {
      "new connections": { targets: through(balancer), noticed: 3 },
      "kept connections": { targets: through(balancer), keepAlive: true, noticed: 3 },
      // Who does not say who they are get 401: the server answers.
      "API server": { targets: [api], status: 401, noticed: 5 },
    };
  });
  after(async () => {
    await checkout.lab("down", "apps-ha", "cluster-ha", "--replace");
    await checkout.remove();
  });

  /** Requests go on from two seconds before the fault until so many seconds after it. */
  async function countedAround(wanted: Kinds, inject: () => Promise<unknown>, seconds: number) {
    const began = performance.now();
    const loads = Object.values(wanted).map((one) => startRequests({ ...one, rate, concurrency: 150 }));
    await pause(2000);
    await inject();
    const at = (performance.now() - began) / 1000;
    await pause(seconds * 1000);
    const results = await Promise.all(loads.map((one) => one.stop()));
    const words: string[] = [];
    const late: string[] = [];
    for (const [index, [name, { noticed }]] of Object.entries(wanted).entries()) {
      const result = results[index] as LoadResult;
      const times = Object.values(result.lostAt).flat();
      const after = times.filter((time) => time > at + noticed).length;
      words.push(`${name}: ${result.lost - after} of ${result.total} at once, ${after} later`);
      if (after > 0) late.push(`${name}, the fault at ${at.toFixed(1)} s: ${lossesOf(result)}`);
    }
    return { happened: words.join("; "), lost: late.join("; ") || "nothing" };
  }

  // The first is watched until Kubernetes itself has noticed, which takes it 40 s.
  for (const [name, seconds] of [
    ["s1", 50],
    ["s2", 15],
    ["s3", 15],
    ["a1", 15],
  ] as const)
    fault(`${name} loses power behind the load balancer`, async () => {
      const outcome = await countedAround(
        kinds,
        () => checkout.output("docker", "kill", machine(name)),
        seconds,
      );
      console.log(`${name}: ${outcome.happened}`);
      await up();
      return outcome;
    });

  fault("the load balancer loses power: the nodes answer at their own addresses", async () => {
    const direct = Object.values(nodes).flatMap((address) => hosts.map((host) => ({ address, host })));
    const outcome = await countedAround(
      { "nodes' own addresses": { targets: direct, noticed: 0 } },
      () => checkout.output("docker", "kill", machine("lb")),
      5,
    );
    await up();
    return outcome;
  });

  test("manual changes on it are repaired, and connections stay", async () => {
    const config = "/etc/k3s-lab-load-balancer/haproxy.cfg";
    await checkout.output("docker", "exec", machine("lb"), "sed", "-i", "s/retries 5/retries 4/", config);
    const { "kept connections": kept } = kinds;
    const load = startRequests({ ...kept, targets: kept?.targets ?? [], rate });
    await up();
    const { lost } = await load.stop();
    assert.equal(lost, 0);
    const text = await checkout.output("docker", "exec", machine("lb"), "cat", config);
    assert.match(text, /retries 5/);
  });

  test("it leaves: K3s's Traefik is back, and nothing of the load balancer's stays", async () => {
    const line = `    - {name: lb, role: loadbalancer, ip: ${balancer}, cpus: 1, memory: 512}\n`;
    await checkout.edit("Pulumi.cluster-ha.yaml", line, "");
    const targets = hosts.map((host) => ({ address: nodes.s1, host }));
    const load = startRequests({ targets, rate });
    await checkout.succeeded(await checkout.lab("up", "cluster-ha", "apps-ha", "--replace"));
    const result = await load.stop();
    // Helm deletes the DaemonSet before the Deployment's pod is ready: docs/operations.md says that it costs seconds.
    console.log(`it leaves: ${result.lost} of ${result.total} requests lost; ${lossesOf(result)}`);
    const get = async (...what: string[]) =>
      (await checkout.output("kubectl", "get", "--output=name", ...what)).split("\n");
    const types = (await get("crds")).flatMap((one) => /\/(middlewares\.traefik\..*)/.exec(one)?.[1] ?? []);
    assert.ok(types.length > 0);
    const kinds = ["deployments", "daemonsets", "addons.k3s.cattle.io", ...types].join();
    const found = await get("--namespace", "kube-system", kinds);
    assert.ok(found.includes("deployment.apps/traefik"), found.join());
    assert.deepEqual(
      found.filter((name) => /retry|daemonset.*\/traefik/.test(name)),
      [],
    );
  });
});
