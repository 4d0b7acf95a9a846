import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { parseAllDocuments } from "yaml";
import { readStackFile } from "../../stacks/config.ts";
import { root } from "../paths.ts";
import { type Contest, compare } from "./index.ts";
import type { Timing } from "./results.ts";

/** Notes what is called; the call of that number fails. */
function contest(failing = -1): { readonly calls: string[]; readonly contest: Contest } {
  const calls: string[] = [];
  const note = (name: string) => async (): Promise<Timing> => {
    calls.push(name);
    if (calls.length - 1 === failing) throw new Error(`${name} broke`);
    return { returned: calls.length, answering: 1, phases: [] };
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
  const timings = await compare(both, (line) => lines.push(line), 2);
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
      compare(both, () => {}, 1),
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
    compare({ ...both, byHand }, () => {}, 3, stop.signal),
    { name: "AbortError" },
  );
  assert.deepEqual(calls, ["prepare", "ready", "byHand", "cleanByHand", "ready", "down"]);
});

test("by hand is the same lab: machines and apps are those of the stack files", async () => {
  const here = import.meta.dirname;
  const { machines } = await readStackFile("cluster", root);
  const vagrantfile = await readFile(join(here, "Vagrantfile"), "utf8");
  for (const { name, ip, memory, cpus } of machines) {
    assert.ok(vagrantfile.includes(`"${name}" => ["${ip}", ${memory}]`), `${name} in the Vagrantfile`);
    assert.ok(vagrantfile.includes(`"--cpus", "${cpus}"`), `CPUs of ${name} in the Vagrantfile`);
  }
  const { apps } = await readStackFile("apps", root);
  const documents = parseAllDocuments(await readFile(join(here, "apps.yaml"), "utf8")).map((one) =>
    one.toJS(),
  );
  const byKind = (kind: string) => documents.filter((one) => one.kind === kind);
  assert.deepEqual(
    byKind("Deployment").map(({ metadata, spec }) => [metadata.name, spec.replicas]),
    apps.map(({ name, replicas }) => [name, replicas]),
  );
  assert.deepEqual(
    byKind("Ingress").map(({ metadata, spec }) => [metadata.name, spec.rules[0].host]),
    apps.map(({ name, host }) => [name, host]),
  );
  for (const { metadata, spec } of byKind("Deployment"))
    assert.deepEqual(spec.template.metadata.labels, spec.selector.matchLabels, metadata.name);
});
