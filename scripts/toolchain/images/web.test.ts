import assert from "node:assert/strict";
import { mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { test } from "node:test";
import { execa } from "execa";
import {
  type AppName,
  appFiles,
  appImageConfig,
  appImageRef,
  appNames,
} from "../../../stacks/model/app-image.ts";
import { writeArchive } from "./archive.ts";
import { appImageSpec } from "./web.ts";

for (const app of appNames)
  test(`the tag of ${app} is a hash of everything in the image: configuration and files`, () =>
    sameAsHashed(app));

async function sameAsHashed(app: AppName): Promise<void> {
  const folder = await mkdtemp(join(tmpdir(), "web-image-"));
  try {
    const spec = await appImageSpec(app);
    assert.equal(spec.ref, await appImageRef(app));
    // The layer of Node.js and its libraries is big, and nothing to this test.
    await writeArchive(join(folder, "image.tar"), [{ ...spec, layers: spec.layers.slice(-1) }]);
    await execa("tar", ["--extract", "--file", "image.tar"], { cwd: folder });
    const [image] = JSON.parse(await readFile(join(folder, "manifest.json"), "utf8"));
    const { config } = JSON.parse(await readFile(join(folder, image.Config), "utf8"));
    const { Entrypoint: entrypoint, User: user } = config;
    assert.deepEqual({ entrypoint, user }, appImageConfig(app));
    const { stdout } = await execa("tar", ["--list", "--file", join(folder, image.Layers[0])]);
    const files = stdout.split("\n").filter((name) => !name.endsWith("/"));
    assert.deepEqual(files.map((name) => `/${name}`).sort(), Object.keys(await appFiles(app)).sort());
  } finally {
    await rm(folder, { recursive: true });
  }
}

for (const app of appNames)
  test(`the files of ${app} run alone: no import is missing and no type is left`, async () => {
    const folder = await mkdtemp(join(tmpdir(), "web-files-"));
    try {
      for (const [path, content] of Object.entries(await appFiles(app))) {
        await mkdir(dirname(join(folder, path)), { recursive: true });
        await writeFile(join(folder, path), content);
      }
      const [, program] = appImageConfig(app).entrypoint;
      // A port that is none ends it once everything was loaded.
      const { exitCode, stderr } = await execa(process.execPath, [join(folder, program)], {
        env: { PORT: "none" },
        reject: false,
      });
      assert.match(stderr, /^PORT is "none"/);
      assert.equal(exitCode, 2);
    } finally {
      await rm(folder, { recursive: true });
    }
  });

test("upgrading the user's Node.js does not change the image if the lab's is there", async () => {
  const cache = await mkdtemp(join(tmpdir(), "web-node-"));
  const file = join(import.meta.dirname, "..", "node", "package.json");
  const { optionalDependencies } = JSON.parse(await readFile(file, "utf8"));
  const name = `node-linux-${process.arch}`;
  const pinned = join(cache, "node", `${name}-${optionalDependencies[name]}`, "bin", "node");
  const seen = async (version: string) => {
    const module = join(import.meta.dirname, "../../../stacks/model/app-image.ts");
    const lines = `Object.defineProperty(process, "version", { value: "${version}" });
      const { appImageRef, appNode } = await import("${module}");
      console.log(await appImageRef(), appNode().path);`;
    const args = ["--disable-warning=ExperimentalWarning", "--input-type=module", "--eval", lines];
    const { stdout } = await execa(process.execPath, args, { env: { K3S_LAB_CACHE: cache } });
    return stdout.split(" ");
  };
  try {
    const [[one, own], [another]] = await Promise.all([seen("v24.0.0"), seen("v24.1.0")]);
    assert.notEqual(one, another, "the one that runs is in it");
    assert.equal(own, process.execPath);
    await mkdir(dirname(pinned), { recursive: true });
    await writeFile(pinned, "");
    const [before, after] = await Promise.all([seen("v24.0.0"), seen("v24.1.0")]);
    assert.deepEqual(before, after);
    assert.equal(before[1], pinned);
  } finally {
    await rm(cache, { recursive: true });
  }
});
