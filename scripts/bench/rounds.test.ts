import assert from "node:assert/strict";
import { test } from "node:test";
import { type Contender, measureInRounds } from "./rounds.ts";

/** Notes what is called; the call of that number fails. */
function contender(
  calls: string[],
  title = "K3s",
  { failing = -1, onCall = () => {} }: { failing?: number; onCall?: (name: string) => void } = {},
): Contender<number> {
  const call = (name: string) => async () => {
    calls.push(`${title} ${name}`);
    onCall(name);
    if (calls.length - 1 === failing) throw new Error(`${name} broke`);
  };
  return {
    title,
    prepare: call("prepare"),
    ready: call("ready"),
    measure: async (step) => {
      await step("bringing it up", call("up"));
      await step("taking it down", call("down"));
      return calls.length;
    },
    takeDown: call("takeDown"),
  };
}
const round = ["ready", "up", "down"];
const of = (title: string, names: readonly string[]) => names.map((name) => `${title} ${name}`);

test("contenders take turns in every round", async () => {
  const calls: string[] = [];
  const lines: string[] = [];
  const both = [contender(calls, "K3s"), contender(calls, "k3d")];
  const results = await measureInRounds(both, 2, (line) => lines.push(line));
  const all = [...of("K3s", round), ...of("k3d", round)];
  assert.deepEqual(calls, ["K3s prepare", "k3d prepare", ...all, ...all]);
  assert.deepEqual(results, [
    [5, 11],
    [8, 14],
  ]);
  assert.equal(lines[2], "round 1 of 2: K3s: bringing it up");
});

for (const [index, name] of ["prepare", ...round].entries())
  test(`cleans up when ${name} fails`, async () => {
    const calls: string[] = [];
    const fails = contender(calls, "K3s", { failing: index });
    await assert.rejects(
      measureInRounds([fails], 1, () => {}),
      new RegExp(`${name} broke`),
    );
    assert.deepEqual(calls.slice(index + 1), index < 2 ? [] : ["K3s takeDown"]);
  });

test("an abort takes effect between two steps and takes down what is up", async () => {
  const calls: string[] = [];
  const stop = new AbortController();
  const stopped = contender(calls, "K3s", { onCall: (name) => name === "up" && stop.abort() });
  await assert.rejects(
    measureInRounds([stopped], 3, () => {}, stop.signal),
    { name: "AbortError" },
  );
  assert.deepEqual(calls, of("K3s", ["prepare", "ready", "up", "takeDown"]));
});
