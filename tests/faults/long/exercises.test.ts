import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { exerciseNames } from "../../../scripts/exercise/model.ts";
import { type Checkout, copyCheckout } from "../../e2e/checkout.ts";
import { exercised } from "../../e2e/exercises.ts";
import { kubectlOf } from "../../e2e/k3d.ts";

// Every exercise that the lab brings, on a cluster of k3d with an agent: what is broken is seen as broken, the solution in
// its file repairs it, and nothing of it is left.

let checkout: Checkout;

describe("the exercises", { concurrency: 2 }, async () => {
  before(async () => {
    checkout = await copyCheckout();
    await checkout.edit("stacks/k3d.yaml", "agents: 0", "agents: 1");
    await checkout.succeeded(await checkout.lab("up", "k3d", "apps-k3d"));
  });
  after(async () => {
    try {
      const { stdout } = await checkout.succeeded(await checkout.lab("verify", "k3d", "apps-k3d", "--json"));
      assert.doesNotMatch(stdout, /"ok": ?false/);
      const left = await kubectlOf(checkout, "k3d")("get", "nodes,namespaces", "--output=yaml");
      assert.doesNotMatch(left, /exercise/);
    } finally {
      await checkout.lab("down", "k3d", "apps-k3d");
      await checkout.remove();
    }
  });

  for (const name of await exerciseNames()) test(name, () => exercised(checkout, name));
});
