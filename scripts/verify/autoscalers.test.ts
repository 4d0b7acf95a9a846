import assert from "node:assert/strict";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { type FakeLab, healthyLab, serveApi, stackFiles, worldOf } from "./fake-lab.ts";
import { verify } from "./index.ts";

let directory = "";
before(async () => {
  directory = await mkdtemp(join(tmpdir(), "k3s-lab-autoscalers-"));
  for (const [name, text] of Object.entries(stackFiles))
    await writeFile(
      join(directory, name),
      text.replace("replicas: 2 }", "replicas: { min: 2, max: 4, cpu: 80 } }"),
    );
});
after(() => rm(directory, { recursive: true }));

const ago = (seconds: number) => new Date(Date.now() - seconds * 1000).toISOString();
const isActive = (status: "True" | "False", seconds: number) => ({
  ...{ type: "ScalingActive", status, lastTransitionTime: ago(seconds), message: "no metrics returned" },
});
const cpu = (part: object) => [{ type: "Resource", resource: { name: "cpu", ...part } }];

/** An autoscaler as the API server has it. */
const autoscaler = (more: { readonly spec?: object; readonly status?: object } = {}) => ({
  metadata: { name: "app2", creationTimestamp: ago(3600) },
  spec: {
    ...{ minReplicas: 2, maxReplicas: 4 },
    metrics: cpu({ target: { type: "Utilization", averageUtilization: 80 } }),
    ...more.spec,
  },
  status: {
    conditions: [{ type: "AbleToScale", status: "True" }, isActive("True", 3000)],
    currentMetrics: cpu({ current: { averageUtilization: 23, averageValue: "6m" } }),
    ...more.status,
  },
});

/** What fails in a lab whose autoscaler and number of pods are these, with what was found. */
async function found(items: readonly object[], replicas = 2, ready = replicas) {
  const lab: FakeLab = healthyLab();
  lab.api["/apis/autoscaling/v2/namespaces/default/horizontalpodautoscalers"] = { items };
  const deployments = lab.api["/apis/apps/v1/namespaces/default/deployments"] as {
    items: { metadata: { name: string }; spec: object; status: object }[];
  };
  const one = deployments.items.find(({ metadata }) => metadata.name === "app2");
  assert.ok(one);
  [one.spec, one.status] = [{ replicas }, { replicas, readyReplicas: ready }];
  const api = await serveApi(lab);
  try {
    const checks = await verify(["apps"], { directory, world: worldOf(lab, api.url) });
    const all = Object.fromEntries(checks.map(({ id, actual }) => [id, actual]));
    return { all, failed: checks.filter(({ ok }) => !ok).map(({ id, actual }) => `${id}: ${actual}`) };
  } finally {
    api.close();
  }
}

test("accepts the autoscaler's number of pods and shows its metric", async () => {
  for (const [replicas, ready] of [
    [2, 2],
    [4, 3],
  ]) {
    const { all, failed } = await found([autoscaler()], replicas, ready);
    assert.deepEqual(failed, []);
    assert.equal(all["apps/app2/autoscaler"], "2 to 4 replicas at 80 % CPU, which is 23 %");
    assert.equal(all["apps/app2/replicas"], `${replicas} replicas, ${ready} ready`);
  }
});

test("fails on more or fewer pods than allowed, or fewer ready than the minimum", async () => {
  for (const [replicas, ready] of [
    [5, 5],
    [1, 1],
    [3, 1],
  ])
    assert.match(
      (await found([autoscaler()], replicas, ready)).failed.join(),
      /^apps\/app2\/replicas: \d repl/,
    );
});

test("waits for the first CPU metric and reports why it is missing", async () => {
  const young = { conditions: [isActive("False", 60)], currentMetrics: null };
  assert.deepEqual((await found([autoscaler({ status: young })])).failed, []);
  const fresh = { ...autoscaler({ status: { conditions: null } }), status: {} };
  fresh.metadata.creationTimestamp = ago(5);
  assert.deepEqual((await found([fresh])).failed, []);
  const never = { conditions: [isActive("False", 300)], currentMetrics: null };
  assert.deepEqual((await found([autoscaler({ status: never })])).failed, [
    "apps/app2/autoscaler: 2 to 4 replicas at 80 % CPU, which is not measured: no metrics returned",
  ]);
});

test("reports a missing autoscaler, or one that differs from the stack file", async () => {
  assert.deepEqual((await found([])).failed, ["apps/app2/autoscaler: there is none"]);
  assert.deepEqual((await found([autoscaler({ spec: { maxReplicas: 9 } })])).failed, [
    "apps/app2/autoscaler: 2 to 9 replicas at 80 % CPU, which is 23 %",
  ]);
});
