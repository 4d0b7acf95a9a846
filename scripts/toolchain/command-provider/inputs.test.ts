import assert from "node:assert/strict";
import { test } from "node:test";
import { checkInputs, executionOf, text } from "./inputs.ts";
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

test("an unknown property is named with the known ones", () => {
  const [failure] = checkInputs({ creat: "a" });
  assert.equal(failure?.property, "creat");
  assert.match(failure?.reason ?? "", /^"creat" is not supported .* with .*create.*stdin/);
});

test("a run gets the plain values", () => {
  const inputs = { stdin: secret("s"), environment: { A: secret("a") }, logging: "none", create: "x" };
  assert.deepEqual(executionOf(inputs), { stdin: "s", environment: { A: "a" }, logging: "none" });
});

test("text takes a string out of a secret", () => {
  assert.equal(text({ create: secret("c") }, "create"), "c");
  assert.equal(text({ create: 1 }, "create"), undefined);
  assert.equal(text({}, "create"), undefined);
});

test("what a command would get of the run before is not carried", () => {
  assert.match(
    checkInputs({ create: "a" })[0]?.reason ?? "",
    /^"addPreviousOutputInEnv" other than false is not/,
  );
});
