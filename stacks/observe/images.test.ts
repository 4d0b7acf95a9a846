import assert from "node:assert/strict";
import { chmod, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import type { ClusterNode } from "../model/outputs.ts";
import { hasImage, observeImages, postgresImageRef } from "./images.ts";

const node: ClusterNode = {
  name: "server",
  role: "server",
  address: "ssh://server.cluster",
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

/** What `ctr images check` prints, its exit code, and whether the node has the image. */
const row = (status: string) => `echo 'REF STATUS'; echo 'docker.io/web:1 ${status} true'`;
const answers = [
  ["all layers are there", row("complete (3/3)"), 0, true],
  ["a layer is missing", row("incomplete (2/3)"), 0, false],
  ["its manifest is missing", row("error"), 1, false],
  ["no such name", ":", 0, false],
  ["no answer", ":", 1, undefined],
] as const;
for (const [what, says, exitCode, has] of answers)
  test(`whether a node has an image: ${what}`, async (t) => {
    const folder = await mkdtemp(join(tmpdir(), "images-"));
    const { PATH } = process.env;
    t.after(async () => {
      process.env.PATH = PATH;
      await rm(folder, { recursive: true });
    });
    await writeFile(join(folder, "docker"), `#!/bin/sh\n${says}\nexit ${exitCode}\n`);
    await chmod(join(folder, "docker"), 0o755);
    process.env.PATH = `${folder}:${PATH}`;
    assert.equal(await hasImage({ name: "a", address: "docker://a" }, "web:1"), has);
  });
