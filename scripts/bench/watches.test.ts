import assert from "node:assert/strict";
import { test } from "node:test";
import type { Node } from "../../stacks/lib/kubernetes.ts";
import { readNodes, untilReady } from "./watches.ts";

const node = (status: "True" | "False"): Node => ({
  metadata: { name: "n", labels: {}, annotations: {} },
  status: { addresses: [], conditions: [{ type: "Ready", status }], nodeInfo: { kubeletVersion: "v1" } },
});
const never = new AbortController().signal;

test("nodes are waited for until enough of them are Ready", async () => {
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

test("a look that gets no answer does not hold up the next one", async () => {
  let looks = 0;
  const look = () => (looks++ === 0 ? new Promise<Node[]>(() => {}) : Promise.resolve([node("True")]));
  await untilReady(1, look)(never);
  assert.equal(looks, 2);
});

test("waiting for nodes ends when it is told to", async () => {
  await assert.rejects(untilReady(1, async () => [])(AbortSignal.timeout(20)));
});

test("without a kubeconfig there are no nodes to read", async () => {
  await assert.rejects(readNodes("/no/such/file"), /there is no/);
});
