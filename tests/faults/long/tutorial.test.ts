import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, describe } from "node:test";
import { root } from "../../../stacks/lib/paths.ts";
import { type Checkout, copyCheckout } from "../../e2e/checkout.ts";
import { hostState, newOnHost } from "../../e2e/host.ts";
import { steps } from "../../steps.ts";

// The tutorial, as a reader follows it: every command in its order, and what it says that is seen.

const text = await readFile(join(root, "docs/tutorial.md"), "utf8");

interface Step {
  readonly title: string;
  readonly commands: string;
  /** Lines that are seen, among others and in any order; `…` is anything. Default: none. */
  readonly seen: string;
}

const tutorial = [...text.matchAll(/```sh\n(.*?)```(?:\n+```text\n(.*?)```)?/gs)].map(
  ({ 1: commands = "", 2: seen = "", index }): Step => {
    const before = text.slice(0, index);
    const part = before
      .match(/^## .*$/gm)
      ?.at(-1)
      ?.slice(3);
    return { title: `${part}: ${commands.split("\n")[0]}`, commands, seen };
  },
);

let checkout: Checkout;
let hostBefore: ReadonlySet<string>;

describe("the tutorial", { concurrency: false }, () => {
  const { test } = steps();
  before(async () => {
    checkout = await copyCheckout();
    hostBefore = await hostState(checkout.directory);
  });
  after(async () => {
    await checkout.lab("down", "cluster", "apps", "my-app", "k3d", "apps-k3d", "--replace");
    await checkout.remove();
  });

  for (const { title, commands, seen } of tutorial)
    test(title, async () => {
      // `run` is as after `eval "$(scripts/lab env)"`.
      const { all } = await checkout.succeeded(await checkout.run("bash", "-euc", commands));
      const lines = all.split("\n");
      for (const line of seen.split("\n").filter(Boolean)) {
        const like = new RegExp(`^${line.trim().split("…").map(RegExp.escape).join(".*")}$`);
        // kubectl lists objects in no order that one could rely on.
        const found = lines.findIndex((one) => like.test(one.trim()));
        assert.ok(found >= 0, `"${line}" is not seen in:\n${all}`);
        lines.splice(found, 1);
      }
    });

  test("nothing is left", async () => {
    assert.deepEqual(await newOnHost(hostBefore, checkout.directory), []);
  });
});
