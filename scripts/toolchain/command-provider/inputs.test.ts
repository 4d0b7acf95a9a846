import assert from "node:assert/strict";
import { test } from "node:test";
import { checkInputs, executionOf, text } from "./inputs.ts";
import { buildEnvironment } from "./run.ts";
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
    logging: unknown,
    triggers: [1, null, { a: [true] }],
    addPreviousOutputInEnv: false,
    __defaults: [],
  };
  assert.deepEqual(checkInputs(inputs), []);
});

test("each wrong value is named with its path", () => {
  const inputs = {
    create: 1,
    environment: { PORT: 80 },
    triggers: "now",
    addPreviousOutputInEnv: "yes",
  };
  assert.deepEqual(checkInputs(inputs), [
    { property: "create", reason: "expected a string" },
    { property: "environment.PORT", reason: "expected a string" },
    { property: "triggers", reason: "expected an array" },
    { property: "addPreviousOutputInEnv", reason: "expected a boolean" },
  ]);
  assert.deepEqual(checkInputs({ environment: [] }), [
    { property: "environment", reason: "expected an object of strings" },
  ]);
});

test("an unknown property is named with the known ones", () => {
  const [failure] = checkInputs({ creat: "a" });
  assert.equal(failure?.property, "creat");
  assert.match(failure?.reason ?? "", /^"creat" is not supported .* with .*create.*stdin/);
});

test("a run gets the plain values", () => {
  const inputs = { stdin: secret("s"), environment: { A: secret("a") }, logging: "none", create: "x" };
  assert.deepEqual(executionOf(inputs), { stdin: "s", environment: { A: "a" }, logging: "none" });
});

test("a run refuses a value that is not known", () => {
  assert.throws(() => executionOf({ environment: { A: unknown } }), /"environment" is not known yet/);
  assert.throws(
    () => executionOf({ environment: { A: 1 } }),
    /"environment.A" cannot be used: expected a string/,
  );
});

test("text takes a string out of a secret", () => {
  assert.equal(text({ create: secret("c") }, "create"), "c");
  assert.equal(text({ create: 1 }, "create"), undefined);
  assert.equal(text({}, "create"), undefined);
});

test("environment goes over what is inherited, the previous output over both, unless it is kept out", () => {
  const execution = { environment: { A: "mine", PULUMI_COMMAND_STDERR: "mine" } };
  const inherited = { A: "theirs", B: "theirs" };
  assert.deepEqual(buildEnvironment(inherited, execution, { stdout: "out", stderr: "err" }), {
    A: "mine",
    B: "theirs",
    PULUMI_COMMAND_STDOUT: "out",
    PULUMI_COMMAND_STDERR: "err",
  });
  assert.deepEqual(buildEnvironment({}, {}, { stdout: "", stderr: "" }), {});
  const kept = { addPreviousOutputInEnv: false };
  assert.deepEqual(buildEnvironment({}, kept, { stdout: "o", stderr: "e" }), {});
});
