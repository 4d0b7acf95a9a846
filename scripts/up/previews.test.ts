import assert from "node:assert/strict";
import { test } from "node:test";
import { Previews } from "./previews.ts";

const step = (operation: string, types: string) => ({
  operation,
  urn: `urn:pulumi:apps::k3s-lab::${types}::app1`,
  inputs: {},
});
const update = step("update", "lab:WebApp$kubernetes:apps/v1:Deployment");

/** Whether `up` may set back what others wrote, after a preview of one step. */
function mayForce(
  shown: ReturnType<typeof step>,
  { previewed = false, refresh = false, changed = false } = {},
) {
  const previews = new Previews();
  previews.note("apps", [shown], previewed);
  if (changed) previews.outdate();
  return previews.createsNothing("apps", refresh);
}

test("a run that creates or replaces a Kubernetes object resets nothing that others wrote", () => {
  assert.equal(mayForce(step("create", "lab:WebApp$kubernetes:apps/v1:Deployment")), false);
  assert.equal(mayForce(step("replace", "kubernetes:core/v1:Namespace")), false);
});

test("updates, and the provider itself, create no object", () => {
  assert.equal(mayForce(update), true);
  assert.equal(mayForce(step("create", "pulumi:providers:kubernetes")), true);
  assert.equal(mayForce(step("create", "lab:NodeImages$command:local:Command")), true);
});

test("configuration with another name and content conflicts with nobody", () => {
  const hashed = {
    ...step("replace", "lab:WebApp$kubernetes:core/v1:ConfigMap"),
    inputs: { immutable: true },
  };
  assert.equal(mayForce(hashed), true);
  assert.equal(mayForce({ ...hashed, inputs: {} }), false);
});

test("a run that refreshes recreates what is gone: a preview without a refresh does not predict it", () => {
  assert.equal(mayForce(update, { refresh: true }), false);
  assert.equal(mayForce(update, { refresh: true, previewed: true }), true);
});

test("after a change a preview predicts nothing until the next one", () => {
  assert.equal(mayForce(update, { changed: true }), false);
  const previews = new Previews();
  previews.note("apps", [update], false);
  previews.outdate();
  assert.equal(previews.isOutdated("apps"), true);
  previews.note("apps", [update], false);
  assert.equal(previews.isOutdated("apps"), false);
  assert.equal(previews.createsNothing("apps", false), true);
});

test("without a preview nothing is known", () => {
  assert.equal(new Previews().createsNothing("apps", false), false);
  assert.equal(new Previews().isOutdated("apps"), false);
});
