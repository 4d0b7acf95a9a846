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
import { type SubstrateName, substrateNames, substrates } from "./substrates.ts";

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
  readonly metadata: { readonly name: string; readonly namespace?: string };
  readonly spec: {
    readonly replicas?: number;
    readonly minReadySeconds?: number;
    readonly template?: unknown;
  };
}

/** What makes a difference in time: how many pods of what kind, where, and how they are reached. */
const essence = ({ kind, metadata: { name, namespace = "default" }, spec }: Manifest) => {
  const { replicas, minReadySeconds, template } = spec;
  return [
    `${kind} ${namespace}/${name}`,
    kind === "Deployment" ? { replicas, minReadySeconds, template } : spec,
  ];
};

const manifests: Readonly<Record<SubstrateName, string>> = { cluster: "apps.yaml", k3d: "apps-k3d.yaml" };

for (const name of substrateNames) {
  const [, stack] = substrates[name].stacks;
  test(`by hand the apps on ${name} are those that the stack deploys`, async () => {
    await mockEngine();
    const { WebApp } = await import("../../stacks/components/web-app.ts");
    const config = await readStackFile(stack, root);
    assert.ok("apps" in config);
    const resources = await resourcesOf(() =>
      config.apps.map(({ name, ...app }) => new WebApp(name, { image: "app", ...app })),
    );
    const made = resources
      // A PodDisruptionBudget is for the day when a node is drained: nobody waits for it.
      .filter(({ type }) => type.startsWith("kubernetes:") && !type.endsWith(":PodDisruptionBudget"))
      .map(({ inputs }) => inputs as unknown as Manifest);

    const text = await readFile(join(here, manifests[name]), "utf8");
    const byHand = parseAllDocuments(text).map((one) => one.toJS() as Manifest);
    const ofApps = byHand.filter(({ kind }) => ["Deployment", "Service", "Ingress"].includes(kind));
    assert.equal(ofApps.length, 3 * config.apps.length);
    assert.deepEqual(Object.fromEntries(ofApps.map(essence)), Object.fromEntries(made.map(essence)));
  });
}

test("every app by hand on k3d is in a namespace that is made before it", async () => {
  const text = await readFile(join(here, manifests.k3d), "utf8");
  const made = new Set<string>();
  for (const document of parseAllDocuments(text)) {
    const { kind, metadata } = document.toJS() as Manifest;
    if (kind === "Namespace") made.add(metadata.name);
    else assert.ok(made.has(metadata.namespace ?? ""), `${kind} ${metadata.name} has a namespace`);
  }
  assert.deepEqual([...made], ["dev", "staging"]);
});

test("by hand on k3d every host is asked for by the script", async () => {
  const script = await readFile(join(here, "by-hand-k3d.sh"), "utf8");
  const text = await readFile(join(here, manifests.k3d), "utf8");
  const hosts = [...text.matchAll(/- host: (\S+)/g)].map(([, host]) => host);
  assert.equal(hosts.length, 5);
  for (const host of hosts) assert.ok(script.split(/\s+/).includes(host ?? ""), `${host} in by-hand-k3d.sh`);
  assert.ok(script.includes(`address=${await substrates.k3d.address()}\n`));
});
