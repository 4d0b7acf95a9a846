import assert from "node:assert/strict";
import { test } from "node:test";
import { blockOf, overlap } from "./addresses.ts";

test("nested networks overlap, adjacent ones do not", () => {
  const meet = (one: string, other: string) => overlap(blockOf(one), blockOf(other));
  assert.ok(meet("192.168.42.0/24", "192.168.0.0/16"));
  assert.ok(meet("192.168.0.0/16", "192.168.42.7"));
  assert.ok(!meet("192.168.42.0/24", "0.0.0.0/1"));
  assert.ok(!meet("192.168.42.0/24", "192.168.43.0/24"));
});
