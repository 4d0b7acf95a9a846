import assert from "node:assert/strict";
import { test } from "node:test";
import type { KubernetesApi } from "../../stacks/lib/kubernetes.ts";
import { parseConfig } from "../../stacks/model/config.ts";
import { type Check, runChecks } from "./check.ts";
import { checkPlacement } from "./placement.ts";

const taint = { key: "dedicated", value: "database", effect: "NoSchedule" };

const node = (
  name: string,
  more: { labels?: object; spec?: object; allocatable?: object; ready?: string; made?: string } = {},
) => ({
  metadata: { name, labels: more.labels ?? {}, creationTimestamp: more.made ?? "2026-01-01T00:00:00Z" },
  spec: { taints: [], unschedulable: false, ...more.spec },
  status: {
    conditions: [{ type: "Ready", status: more.ready ?? "True" }],
    allocatable: more.allocatable ?? { cpu: "2", memory: "1000Mi" },
  },
});

const pod = (name: string, nodeName: string, more: { spec?: object; phase?: string } = {}) => ({
  metadata: {
    ...{ name, namespace: "my-app" },
    labels: { "app.kubernetes.io/name": name.replace(/-.*/, ""), "app.kubernetes.io/part-of": "k3s-lab" },
  },
  spec: {
    ...{ nodeName, priority: name.startsWith("db-") ? 1000 : 0 },
    tolerations: [],
    volumes: name.startsWith("db-") ? [{ persistentVolumeClaim: { claimName: `data-${name}` } }, {}] : [],
    containers: [{ resources: { requests: { cpu: "50m", memory: "64Mi" } } }],
    ...more.spec,
  },
  status: { phase: more.phase ?? "Running" },
});

const volume = (claim: string, on: string) => ({
  metadata: { creationTimestamp: "2026-01-01T00:01:00Z" },
  spec: {
    claimRef: { namespace: "my-app", name: claim },
    nodeAffinity: {
      required: {
        nodeSelectorTerms: [{ matchExpressions: [{ key: "kubernetes.io/hostname", values: [on] }] }],
      },
    },
  },
});

interface Cluster {
  readonly nodes: readonly object[];
  readonly pods: readonly object[];
  readonly volumes: readonly object[];
}

const two: Cluster = {
  nodes: [node("server"), node("agent")],
  pods: [
    pod("frontend-1", "server"),
    pod("frontend-2", "agent"),
    pod("api-1", "server"),
    pod("admin-1", "agent"),
    pod("db-0", "server"),
    pod("db-1", "agent"),
  ],
  volumes: [volume("data-db-0", "server"), volume("data-db-1", "agent")],
};
const withDatabaseOn = (
  zero: string,
  one: string,
  nodes: readonly object[] = two.nodes,
  spec: object = {},
): Cluster => ({
  nodes,
  pods: [...two.pods.slice(0, 4), pod("db-0", zero, { spec }), pod("db-1", one, { spec })],
  volumes: [volume("data-db-0", zero), volume("data-db-1", one)],
});

async function look(cluster: Cluster, database: object = {}): Promise<Record<string, Check>> {
  const config = parseConfig("my-app", { cluster: { stack: "cluster" }, database }, "FILE");
  const api = {
    nodes: async () => cluster.nodes,
    pods: async () => cluster.pods,
    persistentVolumes: async () => cluster.volumes,
  } as unknown as KubernetesApi;
  const checks = await runChecks("my-app", [checkPlacement(config, "Run it.", Promise.resolve(api))]);
  return Object.fromEntries(checks.map((one) => [one.id.replace(/^my-app\/(.*)\/placement$/, "$1"), one]));
}

test("shows where every part of the guest book runs and why", async () => {
  const checks = await look(two);
  assert.deepEqual(
    Object.fromEntries(Object.entries(checks).map(([name, { ok, actual }]) => [name, [ok, actual]])),
    {
      frontend: [true, "1 on server, 1 on agent; on 2 of 2 nodes that fit"],
      api: [true, "1 on server"],
      admin: [true, "1 on agent"],
      db: [true, "db-0 on server (volume), db-1 on agent (volume); on 2 of 2 nodes that fit; priority 1000"],
    },
  );
});

test("names a preferred label and a tolerated taint", async () => {
  const dedicated = node("agent", { labels: { dedicated: "database" }, spec: { taints: [taint] } });
  const tolerations = [{ key: "dedicated", operator: "Equal", value: "database" }];
  const cluster = withDatabaseOn("server", "agent", [node("server"), dedicated], { tolerations });
  const { db, frontend } = await look(cluster, { nodes: "dedicated=database" });
  assert.equal(
    db?.actual,
    "db-0 on server (volume), db-1 on agent (volume, label dedicated=database, tolerates dedicated=database:NoSchedule); on 2 of 2 nodes that fit; priority 1000",
  );
  assert.equal(db?.ok, true);
  // Who does not tolerate it has one node, and what was there before the taint stays.
  assert.equal(frontend?.actual, "1 on server, 1 on agent");
  const none = await look(two, { nodes: "dedicated=database" });
  assert.match(none.db?.actual ?? "", /; no node has dedicated=database;/);
  assert.equal(none.db?.ok, true);
});

test("web apps on one node are reported but pass: the scheduler does not move pods", async () => {
  const { frontend } = await look({
    ...two,
    pods: [pod("frontend-1", "server"), pod("frontend-2", "server"), ...two.pods.slice(2)],
  });
  assert.deepEqual([frontend?.ok, frontend?.actual], [true, "2 on server; on 1 of 2 nodes that fit"]);
});

test("both database pods on one node while another can take one: asks to move the replica", async () => {
  const { db } = await look(withDatabaseOn("server", "server"));
  // No run of `lab up` moves a volume: it tells this and does not fail by it, such as in a lab from before there was this rule.
  assert.deepEqual([db?.ok, db?.isPast], [false, true]);
  assert.equal(db?.actual, "db-0 and db-1 on server (volume); on 1 of 2 nodes that fit; priority 1000");
  assert.equal(db?.expected, "its pods on two nodes, because db-1 fits on agent too");
  assert.match(
    db?.hint ?? "",
    /delete persistentvolumeclaim data-db-1 --wait=false`, then .*delete pod db-1`/,
  );
  const promoted = await look(withDatabaseOn("agent", "agent"), { primary: 1 });
  assert.equal(promoted.db?.expected, "its pods on two nodes, because db-0 fits on server too");
});

for (const [what, other] of [
  ["there is", undefined],
  ["joined when their volumes existed", node("agent", { made: "2026-01-01T00:02:00Z" })],
  ["is cordoned", node("agent", { spec: { unschedulable: true } })],
  ["is not Ready", node("agent", { ready: "Unknown" })],
  ["has a taint that they do not tolerate", node("agent", { spec: { taints: [taint] } })],
  ["has too little memory left", node("agent", { allocatable: { cpu: "2", memory: "150Mi" } })],
] as const)
  test(`both database pods on one node are right if the only other one ${what}`, async () => {
    const cluster = withDatabaseOn("server", "server", [node("server"), ...(other ? [other] : [])]);
    // What runs there takes its part of the memory.
    const { db } = await look({ ...cluster, pods: [...cluster.pods, pod("other-1", "agent")] });
    assert.equal(db?.ok, true);
    const left = what.startsWith("joined") ? "on 1 of 2 nodes that fit" : "no other node fits";
    assert.equal(db?.actual, `db-0 and db-1 on server (volume); ${left}; priority 1000`);
  });

test("reports a database without its priority", async () => {
  const { db } = await look(withDatabaseOn("server", "agent", two.nodes, { priority: 0 }));
  assert.deepEqual([db?.ok, db?.expected], [false, "a priority above the usual 0"]);
});

test("without an answer or pods there is nothing to check", async () => {
  const { db } = await look({ nodes: two.nodes, pods: [], volumes: [] });
  assert.deepEqual([db?.ok, db?.actual], [true, "no pod has a node"]);
  const config = parseConfig("my-app", { cluster: { stack: "cluster" } }, "FILE");
  const silent = Promise.reject(new Error("refused"));
  silent.catch(() => {});
  const [frontend] = await runChecks("my-app", [checkPlacement(config, "Run it.", silent)]);
  assert.match(frontend?.actual ?? "", /^not checked: /);
});

test("on a foreign cluster, nodes' free resources are unknown and only what is visible is shown", async () => {
  const forbidden = async () => Promise.reject(new Error("403"));
  const cluster = { kubeconfig: "k", context: "c" };
  const images = { app: "a:1", database: "p:1" };
  const config = parseConfig("my-app", { cluster, images }, "FILE");
  const api = {
    nodes: async () => two.nodes,
    pods: async (namespace?: string) => (namespace ? withDatabaseOn("server", "server").pods : forbidden()),
    persistentVolumes: forbidden,
  } as unknown as KubernetesApi;
  const checks = await runChecks("my-app", [checkPlacement(config, "Run it.", Promise.resolve(api))]);
  const { ok, actual } = checks.at(-1) ?? {};
  assert.deepEqual([ok, actual], [true, "db-0 and db-1 on server; on 1 of 2 nodes that fit; priority 1000"]);
});

test("of other stacks' apps, shows those with a node preference", async () => {
  const apps = [{ name: "web", host: "a.com", nodes: "disk=ssd" }, { name: "other" }];
  const config = parseConfig("apps", { cluster: { stack: "cluster" }, apps }, "FILE");
  const web = pod("web-1", "agent");
  const api = {
    nodes: async () => [node("server"), node("agent", { labels: { disk: "ssd" } })],
    pods: async () => [{ ...web, metadata: { ...web.metadata, namespace: "default" } }],
    persistentVolumes: async () => [],
  } as unknown as KubernetesApi;
  const checks = await runChecks("apps", [checkPlacement(config, "Run it.", Promise.resolve(api))]);
  assert.deepEqual(
    checks.map(({ id, actual }) => [id, actual]),
    [["apps/web/placement", "1 on agent (label disk=ssd)"]],
  );
});
