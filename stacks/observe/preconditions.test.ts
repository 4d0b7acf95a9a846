import assert from "node:assert/strict";
import { test } from "node:test";
import { root } from "../lib/paths.ts";
import { readK3dFile } from "../model/k3d-file.ts";
import { appsPreconditions, k3dPreconditions, refuseUnlessMet } from "./preconditions.ts";

const file = await readK3dFile("stacks/k3d.yaml", root);
const node = (generation: string) => ({ generation, boot: "b1" });
/** @param now what is absent is called now. */
const k3d = (agents: Readonly<Record<string, string>>, now: string, of = file) =>
  k3dPreconditions(
    of,
    {
      cluster: node("g1"),
      agents: new Map(Object.entries(agents).map(([name, generation]) => [name, node(generation)])),
    },
    now,
  );

test("a missing container has a new generation at each check and still compares equal", async () => {
  const expected = JSON.stringify(await k3d({ a: "g2", b: "absent" }, "absent"));
  refuseUnlessMet(await k3d({ a: "g2", b: "2026-01-01" }, "2026-01-01"), expected);
  assert.throws(() => refuseUnlessMet({}, expected));
});

test("reports a container that disappeared or came back, and an edited file", async () => {
  const expected = JSON.stringify(await k3d({ a: "g2", b: "now" }, "now"));
  const edited = { ...file, servers: 3 };
  const found = await k3d({ a: "now", b: "g3" }, "now", edited);
  assert.throws(() => refuseUnlessMet(found, expected), {
    exitCode: 1,
    message:
      /^Since `lab up` checked: the k3d config file has changed, the container a is absent, the container b exists\. You have not confirmed/,
  });
});

test("refuses if the cluster of the apps has changed", () => {
  const config = { namespaces: [] } as unknown as Parameters<typeof appsPreconditions>[0];
  const expected = JSON.stringify(appsPreconditions(config, "uid-1"));
  assert.throws(
    () => refuseUnlessMet(appsPreconditions(config, "uid-2"), expected),
    /the cluster has changed/,
  );
  refuseUnlessMet(appsPreconditions(config, "uid-1"), expected);
});

test("plain Pulumi has no preconditions", () => refuseUnlessMet(appsPreconditions({} as never), undefined));
