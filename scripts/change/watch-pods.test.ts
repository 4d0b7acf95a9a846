import assert from "node:assert/strict";
import { test } from "node:test";
import pWaitFor from "p-wait-for";
import type { Pod } from "../../stacks/lib/kubernetes.ts";
import { watchPods } from "./watch-pods.ts";

const pod = (name: string, version: string, ready: boolean): Pod => ({
  metadata: { name, labels: {}, annotations: {} },
  spec: { nodeName: "agent", containers: [{ ports: [], env: [{ name: "APP_VERSION", value: version }] }] },
  status: {
    phase: "Pending",
    conditions: [{ type: "Ready", status: ready ? "True" : "False" }],
    containerStatuses: [],
  },
});

test("prints pods when they change, and nothing while the API is silent", async () => {
  const rounds: (readonly Pod[] | undefined)[] = [
    [pod("a", "1", true)],
    [pod("a", "1", true), pod("b", "2", false)],
    undefined,
    [pod("a", "1", true), pod("b", "2", false)],
    [pod("b", "2", true)],
  ];
  const told: string[] = [];
  let round = 0;
  const look = async () => {
    const pods = rounds[Math.min(round++, rounds.length - 1)];
    if (!pods) throw new Error("connection refused");
    return pods;
  };
  const end = watchPods(look, (line) => told.push(line), 1);
  await pWaitFor(() => round > rounds.length);
  await end();
  assert.deepEqual(told, [
    "a (1) on agent: ready",
    "b (2) on agent: Pending",
    "b (2) on agent: ready",
    "a gone",
  ]);
});
