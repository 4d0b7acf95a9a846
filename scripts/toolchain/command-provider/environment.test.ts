import assert from "node:assert/strict";
import { test } from "node:test";
import { buildArgv, buildEnvironment, findProgram } from "./environment.ts";

const nothing = { stdout: "", stderr: "" };

test("environment goes over what is inherited, the previous output over both", () => {
  const execution = { environment: { A: "mine", PULUMI_COMMAND_STDERR: "mine" } };
  assert.deepEqual(
    buildEnvironment({ A: "theirs", B: "theirs" }, execution, { stdout: "out", stderr: "err" }),
    {
      A: "mine",
      B: "theirs",
      PULUMI_COMMAND_STDOUT: "out",
      PULUMI_COMMAND_STDERR: "err",
    },
  );
});

test("an empty previous output sets nothing", () => {
  assert.deepEqual(buildEnvironment({}, {}, nothing), {});
});

test("addPreviousOutputInEnv: false keeps the previous output out", () => {
  assert.deepEqual(buildEnvironment({}, { addPreviousOutputInEnv: false }, { stdout: "o", stderr: "e" }), {});
});

test("the command is the last argument of the interpreter", () => {
  assert.deepEqual(buildArgv({}, "echo a"), ["/bin/sh", "-c", "echo a"]);
  assert.deepEqual(buildArgv({ interpreter: [] }, "echo a"), ["/bin/sh", "-c", "echo a"]);
  assert.deepEqual(buildArgv({ interpreter: ["node", "-e"] }, "1"), ["node", "-e", "1"]);
});

test("a program is looked up in PATH, one with a slash is taken as it is", () => {
  assert.equal(findProgram("sh", "/nowhere:/bin"), "/bin/sh");
  assert.equal(findProgram("sh", "/nowhere"), undefined);
  assert.equal(findProgram("./sh", "/bin"), "./sh");
});
