import assert from "node:assert/strict";
import { mkdir, mkdtemp, readFile, readlink, rm, stat, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { placeFile, placeSymlink } from "./links.ts";
import { ToolCache } from "./toolchain/tool-cache.ts";

const folder = await mkdtemp(join(tmpdir(), "k3s-lab-links-"));
after(() => rm(folder, { recursive: true, force: true }));

test("a tool that is linked again is not hashed again", async () => {
  const cache = new ToolCache(join(folder, "tools"));
  const key = { name: "tool", version: "v1", way: "release", platform: "linux-amd64", recipe: "r" } as const;
  const { dir, files } = await cache.add(key, ["tool"], (work) => writeFile(join(work, "tool"), "whole"));
  const [source, linked] = [files.tool ?? "", join(folder, "bin", "tool")];
  await placeFile(source, linked);
  await cache.find(key);
  const manifest = await readFile(join(dir, "manifest.json"), "utf8");
  const { ctimeNs } = await stat(source, { bigint: true });
  await placeFile(source, linked);
  assert.equal((await stat(source, { bigint: true })).ctimeNs, ctimeNs, "its ctime stays");
  await cache.find(key);
  assert.equal(await readFile(join(dir, "manifest.json"), "utf8"), manifest, "nothing new was noted");
});

test("another file, or a rewritten one, replaces the old link", async () => {
  const path = join(folder, "place", "tool");
  for (const content of ["one", "another"]) {
    const file = join(folder, content);
    await writeFile(file, content);
    await placeFile(file, path);
    assert.equal(await readFile(path, "utf8"), content);
  }
  await rm(join(folder, "another"));
  await writeFile(join(folder, "another"), "new");
  await placeFile(join(folder, "another"), path);
  assert.equal(await readFile(path, "utf8"), "new");
  await placeSymlink("another", path);
  await placeSymlink("one", path);
  assert.equal(await readlink(path), "one");
});

test("a symbolic link is replaced by the file: programs resolve their real path", async () => {
  const [file, path] = [join(folder, "one"), join(folder, "linked")];
  await placeSymlink(file, path);
  await placeFile(file, path);
  await assert.rejects(readlink(path), { code: "EINVAL" });
});

test("leftovers of a killed run with the same process id do no harm", async () => {
  const [file, path] = [join(folder, "new"), join(folder, "again", "tool")];
  await writeFile(file, "new");
  await mkdir(join(folder, "again"));
  await symlink("nowhere", `${path}.${process.pid}`);
  await placeSymlink(file, path);
  assert.equal(await readFile(path, "utf8"), "new");
});
