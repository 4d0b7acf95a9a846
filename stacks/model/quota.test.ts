import assert from "node:assert/strict";
import { test } from "node:test";
import { hardLimits, parseQuantity, quotaShortages } from "./quota.ts";

const quantities: readonly (readonly [string, number | undefined])[] = [
  ["500m", 0.5],
  ["1000m", 1],
  ["2", 2],
  ["0.1", 0.1],
  ["100m", 0.1],
  ["512Mi", 2 ** 29],
  ["1024Mi", 2 ** 30],
  ["1Gi", 2 ** 30],
  ["128k", 128_000],
  ["", undefined],
  ["-1", undefined],
  ["1 Gi", undefined],
  ["2GB", undefined],
  ["2gi", undefined],
  ["1e3", undefined],
  ["constructor", undefined],
];
for (const [text, value] of quantities)
  test(`the quantity "${text}" is ${value}`, () => assert.equal(parseQuantity(text), value));

test("a quota limits only what it names", () => {
  assert.deepEqual(hardLimits({ pods: 10, cpu: "500m", memory: "2Gi" }), {
    pods: "10",
    "requests.cpu": "500m",
    "limits.memory": "2Gi",
  });
  assert.deepEqual(hardLimits({ memory: "2Gi" }), { "limits.memory": "2Gi" });
});

test("a quota leaves room for each app's surge pod", () => {
  const parts = (quota: object) =>
    quotaShortages(quota, [1, 3, 0]).map(({ part, expected }) => [part, expected]);
  const why = "4 pods, and one more for each of the 2 Deployments during a rollout";
  assert.deepEqual(parts({ pods: 6, cpu: "150m", memory: "768Mi" }), []);
  assert.deepEqual(parts({}), []);
  assert.deepEqual(parts({ pods: 5, cpu: "149m", memory: "767Mi" }), [
    ["pods", `at least 6: ${why}`],
    ["cpu", `at least 150m: 25m for ${why}`],
    ["memory", `at least 768Mi: 128Mi for ${why}`],
  ]);
});
