import assert from "node:assert/strict";
import { test } from "node:test";
import { createsObjects } from "./apply.ts";

const step = (operation: string, types: string) => ({
  operation,
  urn: `urn:pulumi:apps::k3s-lab::${types}::app1`,
  inputs: {},
});

test("a run that creates or replaces a Kubernetes object sets back nothing that others wrote", () => {
  assert.equal(createsObjects([step("create", "lab:WebApp$kubernetes:apps/v1:Deployment")]), true);
  assert.equal(createsObjects([step("replace", "kubernetes:core/v1:Namespace")]), true);
});

test("updates, and the provider itself, create no object", () => {
  assert.equal(createsObjects([step("update", "lab:WebApp$kubernetes:apps/v1:Deployment")]), false);
  assert.equal(createsObjects([step("create", "pulumi:providers:kubernetes")]), false);
  assert.equal(createsObjects([step("create", "lab:NodeImages$command:local:Command")]), false);
});
