import assert from "node:assert/strict";
import { test } from "node:test";
import { warningIn } from "./pulumi.ts";

test("a warning of a script and one of the program are shown; where Pulumi found its parts is not", () => {
  const said = (severity: "info" | "warning" | "error", message: string) =>
    warningIn({ diagnosticEvent: { severity, message, color: "never" } });
  assert.equal(said("info", "warning: it went on\n"), "warning: it went on");
  assert.equal(said("warning", "the host x is away\n"), "warning: the host x is away");
  assert.equal(said("warning", "using pulumi-language-nodejs from $PATH at /x\n"), undefined);
  assert.equal(said("info", "K3s runs\n"), undefined);
  assert.equal(said("error", "it failed\n"), undefined);
  assert.equal(warningIn({}), undefined);
});
