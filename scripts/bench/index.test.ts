import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { parseAllDocuments } from "yaml";
import { mockEngine, resourcesOf } from "../../stacks/components/mocks.ts";
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

const here = import.meta.dirname;

test("by hand the machines are those of the stack file", async () => {
  const { machines } = await readStackFile("cluster", root);
  const vagrantfile = await readFile(join(here, "Vagrantfile"), "utf8");
  for (const { name, ip, memory, cpus } of machines) {
    assert.ok(vagrantfile.includes(`"${name}" => ["${ip}", ${memory}]`), `${name} in the Vagrantfile`);
    assert.ok(vagrantfile.includes(`"--cpus", "${cpus}"`), `CPUs of ${name} in the Vagrantfile`);
  }
});

interface Manifest {
  readonly kind: string;
  readonly metadata: { readonly name: string };
  readonly spec: { readonly replicas?: number; readonly template?: unknown };
}

/** What makes a difference in time: how many pods of what kind, and how they are reached. */
const essence = ({ kind, metadata: { name }, spec }: Manifest) => [
  `${kind} ${name}`,
  kind === "Deployment" ? { replicas: spec.replicas, template: spec.template } : spec,
];

test("by hand the apps are those that the stack deploys", async () => {
  await mockEngine();
  const { WebApp } = await import("../../stacks/components/web-app.ts");
  const { apps } = await readStackFile("apps", root);
  const resources = await resourcesOf(() =>
    apps.map(({ name, ...app }) => new WebApp(name, { image: "app", ...app })),
  );
  const made = resources
    .filter(({ type }) => type.startsWith("kubernetes:"))
    .map(({ inputs }) => inputs as unknown as Manifest);

  const text = await readFile(join(here, "apps.yaml"), "utf8");
  const byHand = parseAllDocuments(text).map((one) => one.toJS() as Manifest);
  assert.deepEqual(Object.fromEntries(byHand.map(essence)), Object.fromEntries(made.map(essence)));
});
