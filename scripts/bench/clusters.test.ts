import assert from "node:assert/strict";
import { test } from "node:test";
import { compareClusters, type Measurement, measure, type Site } from "./clusters.ts";

/** Notes what is called; the call of that number fails. */
function fakeSite(
  calls: string[],
  title = "K3s",
  { failing = -1, onCall = () => {} }: { failing?: number; onCall?: (name: string) => void } = {},
): Site {
  const call =
    <T>(name: string, value: T) =>
    async (): Promise<T> => {
      calls.push(`${title} ${name}`);
      onCall(name);
      if (calls.length - 1 === failing) throw new Error(`${name} broke`);
      return value;
    };
  return {
    title,
    prepare: call("prepare", undefined),
    ready: call("ready", undefined),
    up: call("up", { nodesReady: 20, appsAnswering: 40 }),
    usage: call("usage", { memory: 1, disk: 2, processes: 3 }),
    addNode: call("addNode", 10),
    down: call("down", 5),
  };
}

const measured: Measurement = {
  nodesReady: 20,
  appsAnswering: 40,
  memory: 1,
  disk: 2,
  processes: 3,
  addNode: 10,
  takeDown: 5,
};
const steps = ["ready", "up", "usage", "addNode", "down"];
const of = (title: string, names: readonly string[]) => names.map((name) => `${title} ${name}`);

test("a cluster is measured from nothing until it is gone", async () => {
  const calls: string[] = [];
  assert.deepEqual(await measure(fakeSite(calls), () => {}), measured);
  assert.deepEqual(calls, of("K3s", steps));
});

for (const [index, name] of steps.entries())
  test(`nothing is left behind when ${name} fails`, async () => {
    const calls: string[] = [];
    await assert.rejects(
      measure(fakeSite(calls, "K3s", { failing: index }), () => {}),
      new RegExp(`${name} broke`),
    );
    assert.deepEqual(calls.slice(index + 1), name === "ready" ? [] : ["K3s down"]);
  });

test("between two steps it ends when it is told to, and cleans up", async () => {
  const calls: string[] = [];
  const stop = new AbortController();
  const site = fakeSite(calls, "K3s", { onCall: (name) => name === "usage" && stop.abort() });
  await assert.rejects(
    measure(site, () => {}, stop.signal),
    { name: "AbortError" },
  );
  assert.deepEqual(calls, of("K3s", ["ready", "up", "usage", "down"]));
});

test("clusters are measured in turn, each round again", async () => {
  const calls: string[] = [];
  const lines: string[] = [];
  const sites = [fakeSite(calls, "K3s"), fakeSite(calls, "K3d")];
  const result = await compareClusters(sites, (line) => lines.push(line), 2);
  assert.deepEqual(result, [
    [measured, measured],
    [measured, measured],
  ]);
  const round = [...of("K3s", steps), ...of("K3d", steps)];
  assert.deepEqual(calls, ["K3s prepare", "K3d prepare", ...round, ...round]);
  assert.equal(lines[2], "round 1 of 2: K3s: bringing it up");
});
