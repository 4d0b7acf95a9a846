import assert from "node:assert/strict";
import { test } from "node:test";
import { curl, summary } from "./summary.ts";

test("the summary names what it lists and the stack that it belongs to", async () => {
  const parts = (await summary(["cluster", "apps"])).trim().split("\n\n");
  const headings = parts.slice(0, 2).map((part) => part.split("\n", 1)[0]);
  assert.deepEqual(headings, ["Nodes (stack cluster)", "Apps (stack apps)"]);
});

test("an app is asked by its host and its path", () => {
  assert.equal(
    curl("192.168.42.110", "app.com", "/api"),
    "curl -H 'Host: app.com' http://192.168.42.110/api",
  );
  assert.equal(curl("127.0.0.1:8081", "*.app.localhost", "/"), "curl http://any.app.localhost:8081/");
  assert.equal(curl("192.168.42.110", undefined, "/"), "curl http://192.168.42.110/");
});
