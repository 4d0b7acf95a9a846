import assert from "node:assert/strict";
import { test } from "node:test";
import { describeChanges } from "./lab.ts";

test("a first look at another stack's exports is no change", () => {
  assert.equal(describeChanges({ same: 3, read: 1 }), "no change");
  assert.equal(describeChanges({ same: 3, update: 2, read: 1 }), "2 update");
});
