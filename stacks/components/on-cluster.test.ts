import assert from "node:assert/strict";
import { test } from "node:test";
import { mockEngine } from "./fake-engine.ts";

await mockEngine();
const { progressDeadline } = await import("./on-cluster.ts");

test("a rollout fails after two minutes, times the slowness; while an image is being pulled, its state is unknown", () => {
  assert.equal(progressDeadline([undefined, undefined], { slowness: 1 }), 120);
  assert.equal(progressDeadline([undefined], { slowness: 4 }), 480);
  // The pods of the guest book begin once its database answers, whose image may be the one that is pulled.
  assert.equal(progressDeadline([undefined, "registry.example/postgres:15"], { slowness: 1 }), undefined);
});
