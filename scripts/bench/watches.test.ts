import assert from "node:assert/strict";
import { test } from "node:test";
import type { Node } from "../../stacks/lib/kubernetes.ts";
import { readNodes, untilReady } from "./watches.ts";

const node = (status: "True" | "False"): Node => ({
  metadata: { name: "n", labels: {}, annotations: {} },
  status: { addresses: [], conditions: [{ type: "Ready", status }], nodeInfo: { kubeletVersion: "v1" } },
});
const never = new AbortController().signal;

test("waits until enough nodes are Ready", async () => {
  const seen = [
    () => Promise.reject(new Error("there is no kubeconfig")),
    () => Promise.resolve([node("True")]),
    () => Promise.resolve([node("True"), node("False")]),
    () => Promise.resolve([node("True"), node("True")]),
  ];
  let looks = 0;
  await untilReady(2, () => (seen[looks++] ?? assert.fail)())(never);
  assert.equal(looks, 4);
});

test("a poll without an answer does not delay the next one", async () => {
  let looks = 0;
  const look = () => (looks++ === 0 ? new Promise<Node[]>(() => {}) : Promise.resolve([node("True")]));
  await untilReady(1, look)(never);
  assert.equal(looks, 2);
});

test("waiting for nodes stops when aborted", async () => {
  await assert.rejects(untilReady(1, async () => [])(AbortSignal.timeout(20)));
});

test("without a kubeconfig there are no nodes", async () => {
  await assert.rejects(readNodes("/no/such/file"), /there is no/);
});
