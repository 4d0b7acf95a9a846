import assert from "node:assert/strict";
import { test } from "node:test";
import { checkInputs, executionOf, text } from "./inputs.ts";
import { unknown } from "./values.ts";

const secret = (value: string) => ({
  "4dabf18193072939515e22adb298388d": "1b47061264138c4ac30d75fd1eb44270",
  value,
});

test("accepts valid inputs, known or unknown, secret or not", () => {
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

test("reports an unknown property with the known ones", () => {
  const [failure] = checkInputs({ creat: "a" });
  assert.equal(failure?.property, "creat");
  assert.match(failure?.reason ?? "", /^"creat" is not supported .* with .*create.*stdin/);
});

test("unwraps inputs to plain values", () => {
  const inputs = { stdin: secret("s"), environment: { A: secret("a") }, logging: "none", create: "x" };
  assert.deepEqual(executionOf(inputs), { stdin: "s", environment: { A: "a" }, logging: "none" });
});

test("text() unwraps a secret string", () => {
  assert.equal(text({ create: secret("c") }, "create"), "c");
  assert.equal(text({ create: 1 }, "create"), undefined);
  assert.equal(text({}, "create"), undefined);
});

test("outputs of the previous run are not supported as inputs", () => {
  assert.match(
    checkInputs({ create: "a" })[0]?.reason ?? "",
    /^"addPreviousOutputInEnv" other than false is not/,
  );
});
