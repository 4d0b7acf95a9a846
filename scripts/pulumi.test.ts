import assert from "node:assert/strict";
import { test } from "node:test";
import { warningIn } from "./pulumi.ts";

test("shows warnings of scripts and programs, and hides routine messages", () => {
  const said = (
    severity: "info" | "warning" | "error",
    message: string,
    operation: "up" | "destroy" = "up",
  ) => warningIn({ diagnosticEvent: { severity, message, color: "never" } }, operation);
  // Pods that are still starting; and apps whose cluster is destroyed before them, as `lab down` does.
  for (const starting of [
    "[MinimumReplicasUnavailable] Deployment does not have minimum availability.",
    "[Pod app1-59555b5d9b-pvd4w]: containers with unready status: [web]",
    'No matching service found for ingress rule: "app1.com/" -> "app1"',
  ])
    assert.equal(said("warning", starting), undefined);
  const gone = "configured Kubernetes cluster is unreachable: unable to load schema information";
  assert.equal(said("warning", gone, "destroy"), undefined);
  assert.equal(said("warning", gone), `warning: ${gone}`);
  assert.equal(said("info", "warning: it went on\n"), "warning: it went on");
  assert.equal(said("warning", "the host x is away\n"), "warning: the host x is away");
  assert.equal(said("warning", "using pulumi-language-nodejs from $PATH at /x\n"), undefined);
  assert.equal(said("info", "K3s runs\n"), undefined);
  assert.equal(said("error", "it failed\n"), undefined);
  assert.equal(warningIn({}, "up"), undefined);
});
