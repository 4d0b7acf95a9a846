import assert from "node:assert/strict";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { execa } from "execa";
import { appFiles, appImageConfig, appImageRef } from "../../../stacks/model/app-image.ts";
import { writeArchive } from "./archive.ts";
import { appImageSpec } from "./web.ts";

test("what the tag is a hash of is what the image gets: its configuration and its files", async () => {
  const folder = await mkdtemp(join(tmpdir(), "web-image-"));
  try {
    const spec = await appImageSpec();
    assert.equal(spec.ref, await appImageRef());
    // The layer of Node.js and its libraries is big, and nothing to this test.
    await writeArchive(join(folder, "image.tar"), [{ ...spec, layers: spec.layers.slice(-1) }]);
    await execa("tar", ["--extract", "--file", "image.tar"], { cwd: folder });
    const [image] = JSON.parse(await readFile(join(folder, "manifest.json"), "utf8"));
    const { config } = JSON.parse(await readFile(join(folder, image.Config), "utf8"));
    const { Entrypoint: entrypoint, User: user } = config;
    assert.deepEqual({ entrypoint, user }, appImageConfig);
    const { stdout } = await execa("tar", ["--list", "--file", join(folder, image.Layers[0])]);
    const files = stdout.split("\n").filter((name) => !name.endsWith("/"));
    assert.deepEqual(files.map((name) => `/${name}`).sort(), Object.keys(await appFiles()).sort());
  } finally {
    await rm(folder, { recursive: true });
  }
});
