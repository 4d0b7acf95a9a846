import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { root } from "../../stacks/lib/paths.ts";
import { readStackFile } from "../../stacks/model/config.ts";
import { type Contest, runRounds } from "./index.ts";
import type { Timing } from "./results.ts";
import { substrates } from "./substrates.ts";

/** Notes what is called; the call of that number fails. */
function contest(failing = -1): { readonly calls: string[]; readonly contest: Contest } {
  const calls: string[] = [];
  const note = (name: string) => async (): Promise<Timing> => {
    calls.push(name);
    if (calls.length - 1 === failing) throw new Error(`${name} broke`);
    return { returned: calls.length, processor: 0, answering: 1, phases: [] };
  };
  const untimed = (name: string) => async () => void (await note(name)());
  return {
    calls,
    contest: {
      prepare: untimed("prepare"),
      ready: untimed("ready"),
      byHand: note("byHand"),
      cleanByHand: untimed("cleanByHand"),
      up: note("up"),
      down: note("down"),
    },
  };
}

const round = ["ready", "byHand", "cleanByHand", "ready", "up", "up", "down"];

test("both ways run in turn", async () => {
  const { calls, contest: both } = contest();
  const lines: string[] = [];
  const timings = await runRounds(both, (line) => lines.push(line), 2);
  assert.deepEqual(calls, ["prepare", ...round, ...round]);
  assert.deepEqual(
    Object.values(timings).map((list) => list.length),
    [2, 2, 2, 2],
  );
  assert.equal(lines[1], "round 1 of 2: by hand: 3.0 s, apps answering at 1.0 s");
});

for (const [index, name] of ["prepare", ...round].entries())
  test(`no lab is left behind when step ${index}, ${name}, fails`, async () => {
    const { calls, contest: both } = contest(index);
    await assert.rejects(
      runRounds(both, () => {}, 1),
      new RegExp(`${name} broke`),
    );
    const last = calls.slice(index + 1);
    const expected = { byHand: ["cleanByHand"], up: ["down"], down: ["down"] }[name] ?? [];
    assert.deepEqual(last, expected);
  });

test("it ends between two commands when it is told to, and cleans up", async () => {
  const { calls, contest: both } = contest();
  const stop = new AbortController();
  const byHand = () => {
    stop.abort();
    return both.byHand();
  };
  await assert.rejects(
    runRounds({ ...both, byHand }, () => {}, 3, stop.signal),
    { name: "AbortError" },
  );
  assert.deepEqual(calls, ["prepare", "ready", "byHand", "cleanByHand", "ready", "down"]);
});

const here = import.meta.dirname;

test("by hand the machines are those of the stack file", async () => {
  const { machines } = await readStackFile("cluster", root);
  const vagrantfile = await readFile(join(here, "Vagrantfile"), "utf8");
  for (const { name, ip, memory, cpus } of machines) {
    assert.ok(vagrantfile.includes(`"${name}" => ["${ip}", ${memory}]`), `${name} in the Vagrantfile`);
    assert.ok(vagrantfile.includes(`"--cpus", "${cpus}"`), `CPUs of ${name} in the Vagrantfile`);
  }
});

test("by hand on k3d the address is the one that is watched", async () => {
  const script = await readFile(join(here, "by-hand-k3d.sh"), "utf8");
  assert.ok(script.includes(`address=${await substrates.k3d.address()}\n`));
});
