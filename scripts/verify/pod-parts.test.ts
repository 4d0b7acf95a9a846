import assert from "node:assert/strict";
import { test } from "node:test";
import type { KubernetesApi } from "../../stacks/lib/kubernetes.ts";
import { parseConfig } from "../../stacks/model/config.ts";
import { type Check, runChecks } from "./check.ts";
import { checkPodParts } from "./pod-parts.ts";

const healthy = {
  metrics: 'access_log_requests_total{code="200"} 7\n# TYPE neighbour_answers gauge\nneighbour_answers 1\n',
  init: [{ state: { terminated: { reason: "Completed" } } }] as object[],
  ready: "True",
};

async function look(damage: Partial<typeof healthy> = {}, values: object = {}): Promise<Check[]> {
  const { metrics, init, ready } = { ...healthy, ...damage };
  const pod = (app: string, initContainerStatuses: readonly object[]) => ({
    metadata: {
      name: `${app}-1`,
      labels: { "app.kubernetes.io/name": app, "app.kubernetes.io/part-of": "k3s-lab" },
    },
    status: { conditions: [{ type: "Ready", status: ready }], initContainerStatuses },
  });
  const pods = async () => [pod("frontend", []), pod("api", init)];
  const exec = async (name: string) => (name === "frontend-1" ? metrics : assert.fail(name));
  const sources = {
    api: Promise.resolve({ pods } as unknown as KubernetesApi),
    exec: Promise.resolve(exec),
  };
  const config = parseConfig("my-app", { cluster: { stack: "cluster" }, ...values }, "FILE");
  return runChecks("my-app", [checkPodParts(config, "Run it.", sources)]);
}

test("a sidecar with its shared volume and a finished init container pass", async () => {
  const checks = await look();
  assert.deepEqual(
    checks.map(({ id, ok }) => [id, ok]),
    [
      ["my-app/frontend/sidecar", true],
      ["my-app/api/init", true],
    ],
  );
  assert.deepEqual(
    (await look({}, { replicas: { frontend: 0 } })).map(({ id }) => id),
    ["my-app/api/init"],
  );
});

const broken: readonly (readonly [string, Partial<typeof healthy>, string, RegExp])[] = [
  ["no sidecar", { metrics: "ECONNREFUSED" }, "frontend/sidecar", /not answer at localhost: ECONNREFUSED/],
  ["a missing page", { metrics: "neighbour_answers 0\n" }, "frontend/sidecar", /page does not answer it/],
  ["another volume", { metrics: "neighbour_answers 1\n" }, "frontend/sidecar", /reads no line/],
  ["no init container", { init: [] }, "api/init", /^api-1: there is none$/],
  [
    "an init container that failed",
    { init: [{ state: { terminated: { reason: "Error" } } }] },
    "api/init",
    /^api-1: Error$/,
  ],
  ["no ready pod", { ready: "False" }, "api/init", /^not checked: there is no ready pod/],
];
for (const [what, damage, id, actual] of broken)
  test(`reports ${what}`, async () => {
    const check = (await look(damage)).find((one) => one.id === `my-app/${id}`);
    assert.equal(check?.ok, false);
    assert.match(check.actual, actual);
  });
