import assert from "node:assert/strict";
import { test } from "node:test";
import type { ClusterNode } from "../model/outputs.ts";
import { observeImages, postgresImageRef } from "./images.ts";

const node: ClusterNode = {
  name: "server",
  role: "server",
  address: "ssh://server.cluster",
  installation: "1",
};

/** What is noted of the image's loading, and what the node says. */
const looks: readonly (readonly [string, Record<string, string> | undefined, boolean | undefined, string])[] =
  [
    ["an image that is there keeps its time", { IMAGE: "web:1", LOADED: "then" }, true, "then"],
    ["an image that is gone is loaded again", { IMAGE: "web:1", LOADED: "then" }, false, "now"],
    ["of a node that does not say, nothing is known", { IMAGE: "web:1", LOADED: "then" }, undefined, "then"],
    ["another image is loaded", { IMAGE: "web:0", LOADED: "then" }, true, "now"],
    ["the first one is loaded", undefined, true, "now"],
  ];
for (const [what, noted, has, loaded] of looks)
  test(what, async () => {
    const environments = new Map(noted ? [["web-server", noted]] : []);
    const seen = await observeImages("web", "web:1", [node], { environments }, "now", async () => has);
    assert.deepEqual(seen, [{ ...node, loaded }]);
  });

test("the database's image is the one that was built here; without one the error names the command that builds it", async () => {
  assert.equal(
    await postgresImageRef({ postgresImage: "k3s-lab/postgres:15.20-1" }),
    "k3s-lab/postgres:15.20-1",
  );
  await assert.rejects(
    postgresImageRef({}),
    /has not been built in this checkout yet.*`scripts\/lab up` builds it/,
  );
});
