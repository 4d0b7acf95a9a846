import assert from "node:assert/strict";
import { test } from "node:test";
import * as command from "./command.ts";
import { unknown, type WireObject } from "./values.ts";

interface Call {
  readonly command: string;
  readonly previous: object;
}

function recorder(calls: Call[]): command.Runner {
  return async (line, _properties, previous) => {
    calls.push({ command: line, previous });
    return { stdout: `out of ${line}`, stderr: "" };
  };
}

const state: WireObject = { create: "c", environment: { A: "1" }, stdout: "before", stderr: "oops" };

test("create runs create; without it nothing runs and the outputs are empty", async () => {
  const calls: Call[] = [];
  assert.deepEqual(await command.create({ create: "c", triggers: [1] }, recorder(calls)), {
    create: "c",
    triggers: [1],
    stdout: "out of c",
    stderr: "",
  });
  assert.deepEqual(await command.create({ update: "u" }, recorder(calls)), {
    update: "u",
    stdout: "",
    stderr: "",
  });
  assert.deepEqual(calls, [{ command: "c", previous: { stdout: "", stderr: "" } }]);
});

test("update runs update or else create, with the output of the run before", async () => {
  const calls: Call[] = [];
  await command.update(state, { create: "c", update: "u" }, recorder(calls));
  await command.update(state, { create: "c" }, recorder(calls));
  assert.deepEqual(await command.update(state, {}, recorder(calls)), { stdout: "before", stderr: "oops" });
  const previous = { stdout: "before", stderr: "oops" };
  assert.deepEqual(calls, [
    { command: "u", previous },
    { command: "c", previous },
  ]);
});

test("delete runs what the state recorded, if anything", async () => {
  const calls: Call[] = [];
  await command.remove(state, recorder(calls));
  await command.remove({ ...state, delete: "d" }, recorder(calls));
  assert.deepEqual(calls, [{ command: "d", previous: { stdout: "before", stderr: "oops" } }]);
});

test("only triggers replace", () => {
  const changes = command.diffCommand(state, { create: "x", environment: { A: "2" }, triggers: [1] });
  assert.deepEqual(
    [...changes].sort((a, b) => (a.path < b.path ? -1 : 1)),
    [
      { path: "create", change: "update", isReplace: false },
      { path: "environment.A", change: "update", isReplace: false },
      { path: "triggers", change: "add", isReplace: true },
    ],
  );
});

test("a state that the real plugin wrote does not differ from its own inputs", () => {
  const old = { create: "c", environment: { A: "1" }, archive: {}, assets: {}, stderr: "", stdout: "s" };
  assert.deepEqual(command.diffCommand(old, { create: "c", environment: { A: "1" } }), []);
});

test("a preview knows the inputs but not what a run will make", () => {
  const inputs = { create: "c", assetPaths: ["*"] };
  const made = { stdout: unknown, stderr: unknown, assets: unknown };
  assert.deepEqual(command.previewCreate(inputs), { ...inputs, ...made });
  assert.deepEqual(command.previewUpdate(state, inputs), { ...inputs, ...made });
  assert.deepEqual(command.previewUpdate(state, { create: "c", environment: { A: "1" } }), state);
});

test("an id is the resource's name with eight digits", () => {
  assert.match(command.newId("urn:pulumi:s::p::command:local:Command::web"), /^web[0-9a-f]{8}$/);
});
