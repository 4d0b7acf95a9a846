import assert from "node:assert/strict";
import { test } from "node:test";
import type { Pod } from "../../stacks/lib/kubernetes.ts";
import { sharesOf, tableOf, versionsOf } from "./canary.ts";

const pod = (name: string, version: string, more: object = {}): Pod => ({
  metadata: { name, labels: {}, annotations: {}, ...more },
  spec: { nodeName: "agent", containers: [{ ports: [], env: [{ name: "APP_VERSION", value: version }] }] },
  status: { phase: "Running", conditions: [{ type: "Ready", status: "True" }], containerStatuses: [] },
});

test("compares pods and requests of each version", () => {
  const pods = [pod("a", "1.0.0"), pod("b", "1.0.0"), pod("c", "1.1.0")];
  const leaving = pod("d", "0.9.0", { deletionTimestamp: "2026-01-01T00:00:00Z" });
  const answers = ["1.0.0", "1.1.0", "1.0.0", "1.0.0"];
  const shares = sharesOf([...pods, leaving], answers);
  assert.equal(
    tableOf(shares).replace(/ +$/gm, ""),
    `VERSION  PODS  READY  REQUESTS  SHARE
1.0.0    2     2      3 of 4    75 %
1.1.0    1     1      1 of 4    25 %`,
  );
});

test("counts a lost request and goes on", async () => {
  let sent = 0;
  const answers = await versionsOf(async () => {
    sent += 1;
    if (sent === 7) throw new Error("timed out after 10 s");
    return { status: 200, body: JSON.stringify({ app: "a", version: "1.0.0", pod: "a-1" }) };
  });
  assert.deepEqual([answers.length, answers.filter((one) => one === "no answer").length], [200, 1]);
});

test("stops early when nothing answers", async () => {
  let sent = 0;
  const answers = await versionsOf(async () => {
    sent += 1;
    throw new Error("timed out after 10 s");
  });
  assert.deepEqual([sent, answers.length], [12, 12]);
});
