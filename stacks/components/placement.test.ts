import assert from "node:assert/strict";
import { test } from "node:test";
import { mockEngine, resourcesOf } from "./fake-engine.ts";

await mockEngine();
const { Database } = await import("./database.ts");
const { WebApp } = await import("./web-app.ts");
const { placement } = await import("./placement.ts");

const labels = { app: "web" };

test("prefers nodes with a label and tolerates the taint of the same name, whatever its effect", () => {
  const { topologySpreadConstraints: _, ...rest } = placement({ labels, nodes: "example.org/dedicated=web" });
  const [key, values] = ["example.org/dedicated", ["web"]];
  const preference = { matchExpressions: [{ key, operator: "In", values }] };
  assert.deepEqual(rest, {
    affinity: {
      nodeAffinity: { preferredDuringSchedulingIgnoredDuringExecution: [{ weight: 100, preference }] },
    },
    tolerations: [{ key, operator: "Equal", value: "web" }],
  });
});

test("without a label, pods are only spread", () => {
  assert.deepEqual(placement({ labels }), {
    topologySpreadConstraints: [
      {
        maxSkew: 1,
        topologyKey: "kubernetes.io/hostname",
        whenUnsatisfiable: "ScheduleAnyway",
        labelSelector: { matchLabels: labels },
      },
    ],
  });
});

test("web apps and databases prefer a label, each in its own way", async () => {
  const nodes = "dedicated=data";
  const made = await resourcesOf(() => {
    new WebApp("web", { image: "web:1", version: "1", nodes });
    const passwords = { password: "p", replicationPassword: "r" };
    new Database("db", { image: "postgres:15", namespace: "a", owner: "o", ...passwords, nodes });
  });
  const specs = made.flatMap(({ type, inputs }) =>
    /:(Deployment|StatefulSet)$/.test(type)
      ? [(inputs.spec as { template: { spec: { affinity: object; tolerations: object } } }).template.spec]
      : [],
  );
  assert.deepEqual(
    specs.map(({ affinity, tolerations }) => [Object.keys(affinity), tolerations]),
    [["nodeAffinity"], ["nodeAffinity", "podAntiAffinity"]].map((kinds) => [
      kinds,
      [{ key: "dedicated", operator: "Equal", value: "data" }],
    ]),
  );
});

test("each namespace's database has its own PriorityClass, which never preempts", async () => {
  const args = { image: "postgres:15", owner: "o", password: "p", replicationPassword: "r" };
  const made = await resourcesOf(() => {
    for (const namespace of ["my-app", "system-app"])
      new Database(namespace, { ...args, databaseName: "db", namespace });
  });
  const classes = made.filter(({ type }) => type.endsWith(":PriorityClass")).map(({ inputs }) => inputs);
  assert.deepEqual(
    classes.map(({ metadata, value, preemptionPolicy }) => [
      (metadata as { name: string }).name,
      value,
      preemptionPolicy,
    ]),
    // Kubernetes keeps names that begin with system- for itself.
    ["db.my-app", "db.system-app"].map((name) => [name, 1000, "Never"]),
  );
});
