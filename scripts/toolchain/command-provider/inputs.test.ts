import assert from "node:assert/strict";
import { test } from "node:test";
import { checkInputs, commandShapes, executionOf, runShapes, text } from "./inputs.ts";
import { unknown } from "./values.ts";

const secret = (value: string) => ({
  "4dabf18193072939515e22adb298388d": "1b47061264138c4ac30d75fd1eb44270",
  value,
});

test("good inputs pass, known or not, secret or not", () => {
  const inputs = {
    create: "a",
    stdin: secret("s"),
    environment: { A: unknown, B: secret("b") },
    interpreter: unknown,
    triggers: [1, null, { a: [true] }],
    addPreviousOutputInEnv: false,
    __defaults: [],
  };
  assert.deepEqual(checkInputs(inputs, commandShapes), []);
});

test("each wrong value is named with its path", () => {
  const inputs = {
    create: 1,
    environment: { PORT: 80 },
    interpreter: ["sh", true],
    triggers: "now",
    addPreviousOutputInEnv: "yes",
    assetPaths: {},
  };
  assert.deepEqual(checkInputs(inputs, commandShapes), [
    { property: "create", reason: "expected a string, got a number" },
    { property: "environment.PORT", reason: "expected a string, got a number" },
    { property: "interpreter[1]", reason: "expected a string, got a boolean" },
    { property: "triggers", reason: "expected an array, got a string" },
    { property: "addPreviousOutputInEnv", reason: "expected a boolean, got a string" },
    { property: "assetPaths", reason: "expected an array of strings, got an object" },
  ]);
});

test("an unknown property is named with the known ones", () => {
  const [failure] = checkInputs({ creat: "a" }, runShapes);
  assert.equal(failure?.property, "creat");
  assert.match(failure?.reason ?? "", /^unknown property "creat"; known are .*command.*stdin$/);
});

test("a run gets the plain values", () => {
  const inputs = { stdin: secret("s"), environment: { A: secret("a") }, logging: "none", create: "x" };
  assert.deepEqual(executionOf(inputs), { stdin: "s", environment: { A: "a" }, logging: "none" });
});

test("a run leaves out what an old state holds in another shape", () => {
  assert.deepEqual(executionOf({ dir: 3, environment: { A: 1 }, interpreter: ["sh"] }), {
    interpreter: ["sh"],
  });
});

test("a run refuses a value that is not known", () => {
  assert.throws(() => executionOf({ environment: { A: unknown } }), /"environment" is not known yet/);
});

test("text takes a string out of a secret", () => {
  assert.equal(text({ create: secret("c") }, "create"), "c");
  assert.equal(text({ create: 1 }, "create"), undefined);
  assert.equal(text({}, "create"), undefined);
});
