import assert from "node:assert/strict";
import { test } from "node:test";
import { parseConfig } from "./config.ts";

const cluster = { stack: "k3d" };
const parse = (replicas: unknown, quota: object = {}) =>
  parseConfig(
    "apps",
    { cluster, namespace: "dev", namespaces: [{ name: "dev", quota }], apps: [{ name: "a", replicas }] },
    "FILE",
  ).apps[0];

test("an app has a fixed number of pods or a range for autoscaling", () => {
  assert.deepEqual(parse(3), { name: "a", namespace: "dev", replicas: 3, version: "1.0.0" });
  assert.deepEqual(parse({ min: 2, max: 5, cpu: 60 }), {
    ...{ name: "a", namespace: "dev", version: "1.0.0" },
    ...{ replicas: 2, autoscaling: { min: 2, max: 5, cpu: 60 } },
  });
  assert.deepEqual(parse({ max: 4 })?.autoscaling, { min: 1, max: 4, cpu: 50 });
  const { apps } = parseConfig("my-app", { cluster, replicas: { api: { max: 3 } } }, "FILE");
  assert.deepEqual(
    apps.map(({ replicas, autoscaling }) => [replicas, autoscaling?.max]),
    [
      [2, undefined],
      [1, 3],
      [1, undefined],
    ],
  );
});

test("a quota has room for the maximum number of pods", () => {
  assert.ok(parse({ max: 4 }, { pods: 5 }));
  assert.throws(() => parse({ max: 4 }, { pods: 4 }), /quota\.pods: 4 .*at least 5: 4 pods, and one more/);
});

const refused: readonly (readonly [unknown, RegExp])[] = [
  [{ min: 5, max: 2 }, /apps\[0\]\.replicas\.max: 2 is not accepted; expected at least 5, which is min/],
  [{ min: 2 }, /replicas\.max: is missing; expected a number/],
  [{ min: 0, max: 2 }, /replicas\.min: 0 is not accepted; expected at least 1/],
  [{ max: 101 }, /replicas\.max: 101 is not accepted; expected at most 100/],
  [{ max: 2, cpu: 0 }, /replicas\.cpu: 0 is not accepted; expected at least 1/],
  [{ max: 2, cpu: 1.5 }, /replicas\.cpu: 1\.5 is not accepted; expected a whole number/],
  [{ maximum: 2 }, /replicas\.maximum: unknown key; did you mean "max"\? Known: min, max, cpu/],
  ["many", /replicas: "many" is not accepted; expected a whole number, or \{ min, max, cpu \}/],
  [1.5, /replicas: 1\.5 is not accepted; expected a whole number/],
  [101, /replicas: 101 is not accepted; expected at most 100/],
];
for (const [replicas, message] of refused)
  test(`rejects replicas ${JSON.stringify(replicas)}`, () =>
    assert.throws(() => parse(replicas), { exitCode: 2, message }));
