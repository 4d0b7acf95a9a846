import assert from "node:assert/strict";
import { test } from "node:test";
import { fakeCluster } from "./fake-cluster.ts";
import { exerciseNames, type NamedExercise, readExercise } from "./model.ts";
import { chosen, judge, nextHint, reset, solve, start, startedOn, whole } from "./session.ts";

const quiet = () => {};
const broken = await readExercise("wrong-selector");
const kindsIn = (cluster: ReturnType<typeof fakeCluster>, namespace: string) =>
  cluster.objects.filter(({ metadata }) => metadata.namespace === namespace).map(({ kind }) => kind);

test("starts an exercise in its own namespace and changes nothing else", async () => {
  const cluster = fakeCluster();
  const before = structuredClone(cluster.objects);
  const begun = await start(cluster, broken, quiet);
  assert.equal(begun.namespace, "exercise-wrong-selector");
  assert.equal(begun.host, "wrong-selector.exercise.localhost");
  assert.deepEqual(kindsIn(cluster, begun.namespace), ["Deployment", "Service", "Ingress"]);
  const service = cluster.objects.find(({ kind }) => kind === "Service");
  assert.deepEqual(service?.spec, { selector: { app: "webb" } });
  assert.deepEqual(cluster.objects.slice(0, before.length), before);
  const image = JSON.stringify(
    cluster.objects.find(({ metadata }) => metadata.namespace === begun.namespace),
  );
  assert.match(image, /"image":"k3s-lab\/web:1"/);
});

test("refuses to start twice and keeps the running one", async () => {
  const cluster = fakeCluster();
  await start(cluster, broken, quiet);
  const before = structuredClone(cluster.objects);
  await assert.rejects(start(cluster, broken, quiet), { exitCode: 2, message: /is already started/ });
  assert.deepEqual(cluster.objects, before);
});

test("refuses a user's namespace of the same name, and reset leaves it alone", async () => {
  const cluster = fakeCluster();
  cluster.add({ kind: "Namespace", metadata: { name: "exercise-wrong-selector" } });
  const labels = { "k3s-lab/exercise": "wrong-selector", "k3s-lab/exercise-lab": "another" };
  cluster.add({ kind: "Node", metadata: { name: "theirs", labels } });
  const before = structuredClone(cluster.objects);
  await assert.rejects(start(cluster, broken, quiet), { exitCode: 2, message: /Nothing was touched/ });
  assert.equal(await reset(cluster, "wrong-selector"), false);
  assert.deepEqual(cluster.objects, before);
});

test("an interrupted start is continued by the next one or removed by reset", async () => {
  for (const where of ["patch", "rollout", "apply"]) {
    const cluster = fakeCluster();
    cluster.failAt = where;
    await assert.rejects(start(cluster, broken, quiet), /the server is gone/);
    const all = await startedOn(cluster);
    assert.throws(() => whole(chosen(all)), { exitCode: 2, message: /was interrupted/ });
    await start(cluster, broken, quiet);
    assert.equal((await startedOn(cluster))[0]?.isWhole, true);
    assert.equal(await reset(cluster, "wrong-selector"), true);
    assert.deepEqual(cluster.objects, fakeCluster().objects.map(withUids(cluster)));
  }
});

const withUids = (cluster: ReturnType<typeof fakeCluster>) => (one: object, index: number) => ({
  ...one,
  metadata: {
    ...(one as { metadata: object }).metadata,
    uid: cluster.objects[index]?.metadata.uid,
  },
});

test("reset deletes a namespace by UID: one recreated meanwhile stays", async () => {
  const cluster = fakeCluster();
  await start(cluster, broken, quiet);
  const { kubectl } = cluster;
  const racing = {
    ...cluster,
    kubectl: async (args: readonly string[], input?: string) => {
      const answer = await kubectl(args, input);
      const it = cluster.objects.find(({ kind }) => kind === "Namespace");
      if (args[1] === "namespaces" && it) it.metadata.uid = "another";
      return answer;
    },
  };
  await assert.rejects(reset(racing, "wrong-selector"), /Conflict/);
  assert.ok(cluster.objects.some(({ kind }) => kind === "Namespace"));
});

test("labels that a user copied to a namespace or node do not make it the exercise's", async () => {
  const cluster = fakeCluster();
  const { name } = broken;
  const labels = { "k3s-lab/exercise": name, "k3s-lab/exercise-lab": cluster.lab };
  cluster.add({ kind: "Namespace", metadata: { name: "default", labels } });
  cluster.add({ kind: "Node", metadata: { name: "agent", labels } });
  const before = structuredClone(cluster.objects);
  assert.deepEqual(await startedOn(cluster), []);
  assert.equal(await reset(cluster, name), false);
  assert.deepEqual(cluster.objects, before);
});

test("reset removes the node and the taint even if the learner deleted the namespace", async () => {
  const cluster = fakeCluster();
  cluster.add({ kind: "Node", metadata: { name: "agent" } });
  for (const name of ["lost-node", "tainted-node"]) {
    await start(cluster, await readExercise(name), quiet);
    const index = cluster.objects.findIndex(({ kind }) => kind === "Namespace");
    cluster.objects.splice(index, 1);
    assert.equal(await reset(cluster, name), true);
  }
  const nodes = cluster.objects.filter(({ kind }) => kind === "Node");
  assert.deepEqual(
    nodes.map(({ metadata, spec }) => [metadata.name, spec]),
    [
      ["server", undefined],
      ["agent", { taints: [] }],
    ],
  );
});

test("reset force-deletes only pods on the node without a kubelet", async () => {
  const cluster = fakeCluster();
  await start(cluster, await readExercise("lost-node"), quiet);
  cluster.add({ kind: "Pod", metadata: { name: "web-1", namespace: "exercise-lost-node" }, spec: {} });
  const kept = cluster.add({ kind: "Pod", metadata: { name: "data-0", namespace: "default" }, spec: {} });
  cluster.calls.length = 0;
  await reset(cluster, "lost-node");
  const raw = cluster.calls.filter((args) => args.includes("--raw")).map(([, , path]) => path);
  assert.deepEqual(raw, [
    "/api/v1/namespaces/exercise-lost-node",
    "/api/v1/namespaces/exercise-lost-node/pods/data-0",
    "/api/v1/nodes/exercise-lost-node-gone",
  ]);
  assert.ok(cluster.objects.includes(kept));
});

test("a user's node of the same name is neither used nor deleted", async () => {
  const cluster = fakeCluster();
  const theirs = cluster.add({ kind: "Node", metadata: { name: "exercise-lost-node-gone" } });
  await assert.rejects(start(cluster, await readExercise("lost-node"), quiet), /AlreadyExists/);
  await reset(cluster, "lost-node");
  assert.ok(cluster.objects.includes(theirs));
});

test("the node without a kubelet does not count as an agent", async () => {
  const cluster = fakeCluster();
  await start(cluster, await readExercise("lost-node"), quiet);
  await assert.rejects(start(cluster, await readExercise("tainted-node"), quiet), /has none/);
});

test("picks an agent that can run pods, so that the exercise is solvable", async () => {
  const cluster = fakeCluster();
  const at = (status: string) => ({ status: { conditions: [{ type: "Ready", status }] } });
  cluster.add({ kind: "Node", metadata: { name: "a" }, ...at("Unknown") });
  cluster.add({ kind: "Node", metadata: { name: "b" }, spec: { unschedulable: true }, ...at("True") });
  await assert.rejects(start(cluster, await readExercise("tainted-node"), quiet), /has none/);
  const ready = cluster.add({ kind: "Node", metadata: { name: "c" }, ...at("True") });
  await start(cluster, await readExercise("tainted-node"), quiet);
  assert.deepEqual(ready.spec, { taints: [{ key: "tainted-node.exercise.k3s-lab", value: cluster.lab }] });
});

test("an exercise that needs an agent is refused without one, and changes nothing", async () => {
  const cluster = fakeCluster();
  const tainted = await readExercise("tainted-node");
  await assert.rejects(start(cluster, tainted, quiet), {
    exitCode: 2,
    message: /needs a cluster with an agent/,
  });
  assert.equal(cluster.objects.length, fakeCluster().objects.length);
});

test("hints come in order, the last one repeats, and none gives the solution", async () => {
  const cluster = fakeCluster();
  await start(cluster, broken, quiet);
  const given: number[] = [];
  for (let asked = 0; asked < 4; asked++) {
    const { number, hint } = await nextHint(cluster, whole(chosen(await startedOn(cluster))));
    given.push(number);
    assert.doesNotMatch(hint, /\$\{/);
  }
  assert.deepEqual(given, [1, 2, 3, 3]);
  const namespace = cluster.objects.find(({ kind }) => kind === "Namespace");
  assert.doesNotMatch(JSON.stringify(namespace), /solution/);
});

test("edited notes do not keep an exercise from being reset", async () => {
  for (const notes of [
    {},
    { "k3s-lab/exercise-content": "{" },
    { "k3s-lab/exercise-content": '{"title":1}' },
  ]) {
    const cluster = fakeCluster();
    await start(cluster, broken, quiet);
    await start(cluster, await readExercise("wrong-port"), quiet);
    const namespace = cluster.objects.find(({ metadata }) => metadata.name === "exercise-wrong-selector");
    Object.assign(namespace?.metadata ?? {}, {
      annotations: { "k3s-lab/exercise-phase": "started", ...notes },
    });
    const all = await startedOn(cluster);
    assert.throws(() => whole(chosen(all, "wrong-selector")), {
      exitCode: 2,
      message: /annotations .* changed/,
    });
    whole(chosen(all, "wrong-port"));
    assert.equal(await reset(cluster, "wrong-port"), true);
    assert.equal(await reset(cluster, "wrong-selector"), true);
  }
});

test("an invalid hint counter starts again", async () => {
  const cluster = fakeCluster();
  await start(cluster, broken, quiet);
  const namespace = cluster.objects.find(({ kind }) => kind === "Namespace");
  Object.assign(namespace?.metadata.annotations ?? {}, { "k3s-lab/exercise-hints": "many" });
  assert.equal((await nextHint(cluster, whole(chosen(await startedOn(cluster))))).number, 1);
});

test("two labs on one cluster do not remove each other's taints", async () => {
  const cluster = fakeCluster();
  const agent = cluster.add({ kind: "Node", metadata: { name: "agent" } });
  await start(cluster, await readExercise("tainted-node"), quiet);
  const taints = structuredClone(agent.spec);
  assert.equal(await reset({ ...cluster, lab: "lab-b" }, "tainted-node"), false);
  assert.deepEqual(agent.spec, taints);
  assert.equal(await reset(cluster, "tainted-node"), true);
  assert.deepEqual(agent.spec, { taints: [] });
});

test("an exercise too large for its notes is refused before anything is created", async () => {
  const cluster = fakeCluster();
  const before = structuredClone(cluster.objects);
  const sees = "x".repeat(100_000);
  const large = { ...broken, exercise: { ...broken.exercise, sees } };
  await assert.rejects(start(cluster, large, quiet), { exitCode: 2, message: /at most 100000/ });
  assert.deepEqual(cluster.objects, before);
});

test("asks which exercise is meant if several are running", async () => {
  const cluster = fakeCluster();
  await assert.rejects(async () => chosen(await startedOn(cluster)), { exitCode: 2, message: /No exercise/ });
  await start(cluster, broken, quiet);
  await start(cluster, await readExercise("wrong-port"), quiet);
  const all = await startedOn(cluster);
  assert.throws(() => chosen(all), { exitCode: 2, message: /Say which: wrong-selector, wrong-port/ });
  assert.equal(chosen(all, "wrong-port").name, "wrong-port");
  assert.throws(() => chosen(all, "bad-image"), { exitCode: 2, message: /is not started/ });
});

test("a check that cannot run shows why and does not pass", async () => {
  const cluster = fakeCluster();
  await start(cluster, broken, quiet);
  cluster.failAt = "endpointslice";
  const checks = await judge(cluster, whole(chosen(await startedOn(cluster))));
  assert.deepEqual(
    checks.map(({ id, ok }) => [id, ok]),
    [
      ["wrong-selector/1/endpoints", false],
      ["wrong-selector/2/ready", false],
      ["wrong-selector/3/http", false],
    ],
  );
  assert.equal(checks[0]?.actual, "not checked: the server is gone");
  assert.equal(checks[2]?.actual, "status 404 at 192.168.42.110");
});

for (const name of await exerciseNames())
  test(`${name}: its steps and its solution run, and reset leaves nothing behind`, async () => {
    const cluster = fakeCluster();
    cluster.add({ kind: "Node", metadata: { name: "agent" } });
    const before = cluster.objects.map(({ metadata }) => metadata.uid);
    const exercise: NamedExercise = await readExercise(name);
    await start(cluster, exercise, quiet);
    await solve(cluster, exercise);
    assert.doesNotMatch(JSON.stringify([cluster.objects, cluster.calls]), /\$\{/);
    await reset(cluster, name);
    assert.deepEqual(
      cluster.objects.map(({ metadata }) => metadata.uid),
      before,
    );
  });
