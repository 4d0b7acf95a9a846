import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { mkdir, mkdtemp, readdir, rm, symlink, utimes, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, test } from "node:test";
import { fakeRun } from "../host/fake-run.ts";
import { noteCheckout, prune } from "./prune.ts";
import { tools, versionOf } from "./tools.ts";

let folder = "";
let cache = "";
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "prune-"));
  cache = join(folder, "cache");
});
afterEach(() => rm(folder, { recursive: true, force: true }));

const old = new Date(Date.now() - 40 * 86_400_000);
const noDocker = fakeRun([/^docker/, { exitCode: 1 }]).run;

async function file(...path: string[]): Promise<string> {
  const whole = join(folder, ...path);
  await mkdir(join(whole, ".."), { recursive: true });
  await writeFile(whole, "1234");
  return whole;
}

test("keeps current tools, and older ones that some checkout uses", async () => {
  const current = `${versionOf(tools.helm, "module")}-module-linux-amd64`;
  await file("cache/tools/helm", current, "helm");
  await file("cache/tools/helm/v3.0.0-module-linux-amd64/helm");
  const used = await file("cache/tools/k3d/v5.0.0-release-linux-amd64/k3d");
  await mkdir(join(folder, "other/.lab/bin"), { recursive: true });
  await symlink(used, join(folder, "other/.lab/bin/k3d"));
  await noteCheckout(cache, join(folder, "other"));
  const pruned = await prune({ cache, table: tools, run: noDocker });
  assert.deepEqual(pruned, [{ what: "tool helm v3.0.0-module-linux-amd64", bytes: 4 }]);
  assert.deepEqual(await readdir(join(cache, "tools/helm")), [current]);
  assert.deepEqual(await readdir(join(cache, "tools/k3d")), ["v5.0.0-release-linux-amd64"]);
});

test("a checkout with a half-written note is noted again: its tools stay", async () => {
  const used = await file("cache/tools/k3d/v5.0.0-release-linux-amd64/k3d");
  await mkdir(join(folder, "other/.lab/bin"), { recursive: true });
  await symlink(used, join(folder, "other/.lab/bin/k3d"));
  await noteCheckout(cache, join(folder, "other"));
  const [note = ""] = await readdir(join(cache, "checkouts"));
  await writeFile(join(cache, "checkouts", note), "");
  await noteCheckout(cache, join(folder, "other"));
  assert.deepEqual(await prune({ cache, table: tools, run: noDocker }), []);
});

test("files that another run removes meanwhile are no error", async () => {
  await mkdir(join(cache, "downloads"), { recursive: true });
  // Listed, and not there when it is looked at.
  await symlink("gone", join(cache, "downloads/1.part"));
  assert.deepEqual(await prune({ cache, table: tools, run: noDocker }), []);
});

test("removes partial files of killed runs, old downloads and last month's Debian packages; today's stay", async () => {
  for (const name of ["tools/helm/.making-v1-x", "images/debian/vim-x64"]) {
    await file("cache", name, "file");
    await file("cache", `${name}-new`, "file");
    await utimes(join(cache, name), old, old);
  }
  await file("cache/downloads/1-new.part");
  await utimes(await file("cache/downloads/1-old.part"), old, old);
  const pruned = await prune({ cache, table: tools, run: noDocker });
  assert.deepEqual(pruned.map(({ what }) => what).sort(), [
    "Debian's packages vim-x64",
    "download 1-old.part",
    "tool helm .making-v1-x",
  ]);
});

/** A tag as the lab gives it: it ends with a hash. */
const hash = (digit: string) => digit.repeat(16);

test("images: keeps the newest of each kind and those that a container or a checkout uses", async () => {
  await writeFile(await file("other/.lab/host.json"), `{"machineImage": "k3s-lab/machine:${hash("b")}"}`);
  await noteCheckout(cache, join(folder, "other"));
  const images = [
    ...["a", "b", "c", "d"].map((digit) => `machine:${hash(digit)}`),
    `machine:${hash("d")}-unfilled-7`,
    `base:${hash("a")}`,
    // A person's own, by a name like the lab's, or a commit of a machine.
    ...["machine:new", "machine:backup", "backup:new", "backup:old", `machine:${hash("e")}`],
  ];
  const line = (tag: string) =>
    `k3s-lab/${tag}\t2026-01-01 10:00:00 +0000 UTC\t${tag.endsWith("e") ? "sha256:commit" : "sha256:own"}`;
  const { run, commands } = fakeRun(
    [/^docker image ls .*k3s-lab\.id/, { stdout: "sha256:commit\nsha256:nameless\n" }],
    [/^docker image ls .*dangling/, { stdout: "sha256:abc\nsha256:abc\nsha256:nameless\n" }],
    [/^docker image ls/, { stdout: images.map(line).join("\n") }],
    [/^docker ps/, { stdout: `k3s-lab/machine:${hash("c")}\n` }],
    [/^docker image rm/, {}],
  );
  await prune({ cache, table: tools, run });
  const removed = commands.filter((line) => line.includes("image rm"));
  assert.deepEqual(removed, [
    `docker image rm k3s-lab/machine:${hash("d")}`,
    `docker image rm k3s-lab/machine:${hash("d")}-unfilled-7`,
    "docker image rm sha256:abc",
  ]);
});

test("removes last month's base image without containers; its successor has today's packages", async () => {
  const { run, commands } = fakeRun(
    [/^docker image ls .*(dangling|k3s-lab\.id)/, {}],
    [/^docker image ls/, { stdout: `k3s-lab/base:${hash("a")}\t2026-01-01 10:00:00 +0000 UTC\tsha256:own` }],
    [/^docker ps/, { stdout: "" }],
    [/^docker image rm/, {}],
  );
  const run30 = (now: string) => prune({ cache, table: tools, run, now: Date.parse(now) });
  assert.deepEqual(await run30("2026-01-20T00:00:00Z"), []);
  assert.deepEqual(await run30("2026-03-01T00:00:00Z"), [{ what: `image k3s-lab/base:${hash("a")}` }]);
  assert.equal(commands.filter((line) => line.includes("image rm")).length, 1);
});

test("an unreadable checkout may use anything: nothing is removed", async () => {
  const unused = await file("cache/tools/helm/v3.0.0-module-linux-amd64/helm");
  await noteCheckout(cache, join(folder, "other"));
  await mkdir(join(folder, "other/.lab"), { recursive: true });
  for (const [path, put] of [
    ["bin", () => symlink("bin", join(folder, "other/.lab/bin"))],
    ["host.json", () => mkdir(join(folder, "other/.lab/host.json"))],
  ] as const) {
    await put();
    const images = { stdout: "k3s-lab/machine:a\t2026-01-01 10:00:00 +0000 UTC\n".repeat(2) };
    const { run, commands } = fakeRun([/^docker (image ls|ps)/, images], [/^docker image rm/, {}]);
    await assert.rejects(prune({ cache, table: {}, run }), path);
    assert.deepEqual(
      commands.filter((line) => line.includes(" rm ")),
      [],
    );
    await rm(join(folder, "other/.lab", path), { recursive: true });
    if (path === "bin") assert.equal(existsSync(unused), true);
  }
});
