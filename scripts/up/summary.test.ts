import assert from "node:assert/strict";
import { test } from "node:test";
import { summary } from "./summary.ts";

test("the summary names its items and their stack", async () => {
  const parts = (await summary(["cluster", "apps"])).trim().split("\n\n");
  const headings = parts.slice(0, 2).map((part) => part.split("\n", 1)[0]);
  assert.deepEqual(headings, ["Nodes (stack cluster)", "Apps (stack apps)"]);
});
