import assert from "node:assert/strict";
import { test } from "node:test";
import { sourcesOf } from "./up-to-date.ts";

test("the order of settings does not change a stack's sources, a value does", async () => {
  const sources = await sourcesOf("cluster", { machineImage: "a", dockerHost: "b" });
  assert.equal(await sourcesOf("cluster", { dockerHost: "b", machineImage: "a" }), sources);
  assert.notEqual(await sourcesOf("cluster", { dockerHost: "b", machineImage: "c" }), sources);
});
