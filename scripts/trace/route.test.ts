import assert from "node:assert/strict";
import { test } from "node:test";
import { routeTo, ruleOf } from "./route.ts";

const apps = [
  { name: "page", host: "my-app.com", aliases: ["myapp.com"] },
  { name: "api", host: "my-app.com", paths: [{ path: "/api" }] },
  { name: "health", host: "my-app.com", paths: [{ path: "/api/health", match: "exact" as const }] },
  { name: "any", host: "*.my-app.com" },
  { name: "admin", host: "admin.my-app.com", paths: [{ path: "/login" }] },
  { name: "rest" },
];

test("an exact host beats a wildcard, which beats none; then the longest path wins", () => {
  const routes = {
    "my-app.com/": "page",
    "my-app.com/apiary": "page",
    "myapp.com/": "page",
    "my-app.com/api": "api",
    "my-app.com/api/entries": "api",
    "my-app.com/api/health": "health",
    "my-app.com/api/health/x": "api",
    "b.my-app.com/": "any",
    "a.b.my-app.com/": "rest",
    "admin.my-app.com/login": "admin",
    "admin.my-app.com/": "any",
    "else.org/": "rest",
  };
  for (const [asked, name] of Object.entries(routes)) {
    const at = asked.indexOf("/");
    assert.equal(routeTo(apps, asked.slice(0, at), asked.slice(at))?.app.name, name, asked);
  }
  assert.equal(routeTo(apps.slice(0, 2), "else.org", "/"), undefined);
  const rules = ["my-app.com", "myapp.com"].map((host) => ruleOf(apps[0] ?? {}, host));
  assert.deepEqual(rules, ["my-app.com", "myapp.com"]);
});
