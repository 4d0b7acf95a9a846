import assert from "node:assert/strict";
import { test } from "node:test";
import { forceFields, upWithForcedFields } from "./set-back.ts";

const conflict = new Error('Apply failed with 1 conflict: conflict with "kubectl" with subresource "scale"');
const step = (operation: string, name: string) => ({
  operation,
  urn: `urn:pulumi:apps::k3s-lab::lab:WebApp$kubernetes:apps/v1:Deployment::${name}`,
  inputs: {},
});
const steps = [step("update", "app1"), step("create", "app2")];

/** Runs it on a cluster where each attempt fails with the next of these errors; undefined: it succeeds. */
async function tried(createsNothing: boolean, ...errors: readonly (Error | undefined)[]) {
  const attempts: unknown[] = [];
  const outcome = await upWithForcedFields(
    createsNothing,
    async (environment, exclude) => {
      const error = errors[attempts.length];
      attempts.push(exclude ? [environment, exclude] : environment);
      if (error) throw error;
      return { same: 1, [`attempt ${attempts.length}`]: 1 };
    },
    async () => steps,
  ).catch((error: Error) => error.message);
  return { outcome, attempts };
}

test("a run that creates nothing resets at once what others wrote", async () => {
  assert.deepEqual((await tried(true)).attempts, [forceFields]);
  assert.deepEqual(await tried(true, conflict), { outcome: conflict.message, attempts: [forceFields] });
});

test("a run that creates something forces nothing, unless others changed an existing object: then only that, first", async () => {
  assert.deepEqual((await tried(false)).attempts, [{}]);
  assert.deepEqual(await tried(false, conflict), {
    outcome: { same: 1, "attempt 2": 1, "attempt 3": 1 },
    attempts: [{}, [forceFields, [step("create", "app2").urn]], {}],
  });
});

test("what another stack has just created is not adopted, and other errors stay the same", async () => {
  const { outcome, attempts } = await tried(false, conflict, undefined, conflict);
  assert.equal(outcome, conflict.message);
  assert.equal(attempts.length, 3);
  assert.deepEqual(await tried(false, new Error("no")), { outcome: "no", attempts: [{}] });
});
