import assert from "node:assert/strict";
import { test } from "node:test";
import * as command from "./command.ts";
import { unknown, type WireObject } from "./values.ts";

function recorder(calls: string[]): command.Runner {
  return async (line) => {
    calls.push(line);
    return { stdout: `out of ${line}`, stderr: "" };
  };
}

const state: WireObject = { create: "c", environment: { A: "1" }, stdout: "before", stderr: "oops" };

test("create runs create; without it, nothing runs and the outputs are empty", async () => {
  const calls: string[] = [];
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
  assert.deepEqual(calls, ["c"]);
});

test("update runs update, else create; without both, the outputs stay", async () => {
  const calls: string[] = [];
  await command.update(state, { create: "c", update: "u" }, recorder(calls));
  await command.update(state, { create: "c" }, recorder(calls));
  assert.deepEqual(await command.update(state, {}, recorder(calls)), { stdout: "before", stderr: "oops" });
  assert.deepEqual(calls, ["u", "c"]);
});

test("delete runs the recorded command, if any", async () => {
  const calls: string[] = [];
  await command.remove(state, recorder(calls));
  await command.remove({ ...state, delete: "d" }, recorder(calls));
  assert.deepEqual(calls, ["d"]);
});

const secret = (value: string) => ({
  "4dabf18193072939515e22adb298388d": "1b47061264138c4ac30d75fd1eb44270",
  value,
});

const changes: readonly [string, WireObject, WireObject, readonly string[]][] = [
  ["nothing", { create: "a", triggers: [1, { b: true }] }, { create: "a", triggers: [1, { b: true }] }, []],
  ["text", { create: "a", delete: "x" }, { create: "b", update: "u" }, ["create", "delete", "update"]],
  ["a variable", { environment: { A: "1" } }, { environment: { A: "1", E: "" } }, ["environment"]],
  ["an array element", { triggers: [1, { deep: [1] }] }, { triggers: [1, { deep: [2] }] }, ["triggers"]],
  ["a shorter array", { triggers: [1, 2] }, { triggers: [1] }, ["triggers"]],
  ["another type", { triggers: [1] }, { triggers: ["1"] }, ["triggers"]],
  ["null as absent", { stdin: null }, {}, []],
  ["an equal secret", { stdin: secret("s") }, { stdin: secret("s") }, []],
  ["a changed secret", { stdin: secret("s") }, { stdin: secret("t") }, ["stdin"]],
  ["a value that becomes secret", { stdin: "s" }, { stdin: secret("s") }, ["stdin"]],
  ["a value that is not yet known", { triggers: ["1"] }, { triggers: [unknown] }, ["triggers"]],
  ["what belongs to the engine", { __defaults: [], version: "1" }, { version: "2" }, []],
];

for (const [name, olds, news, expected] of changes)
  test(`a change of ${name}`, () => {
    assert.deepEqual(command.changedInputs({}, news, olds), expected);
  });

test("a state written by the real plugin does not differ from its own inputs", () => {
  const old = { create: "c", environment: { A: "1" }, archive: {}, assets: {}, stderr: "", stdout: "s" };
  assert.deepEqual(command.changedInputs(old, { create: "c", environment: { A: "1" } }), []);
});

test("a preview knows the inputs but not the outputs", () => {
  const inputs = { create: "d" };
  const made = { stdout: unknown, stderr: unknown };
  assert.deepEqual(command.previewCreate(inputs), { ...inputs, ...made });
  assert.deepEqual(command.previewUpdate(state, inputs), { ...inputs, ...made });
  assert.deepEqual(command.previewUpdate(state, { create: "c", environment: { A: "1" } }), state);
});

test("an id is the resource's name with eight digits", () => {
  assert.match(command.newId("urn:pulumi:s::p::command:local:Command::web"), /^web[0-9a-f]{8}$/);
});
