import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { lstat, mkdir, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { after, test } from "node:test";
import { execa } from "execa";

const folder = await mkdtemp(join(tmpdir(), "place-"));
after(() => rm(folder, { recursive: true }));

const snapshots = "io.containerd.snapshotter.v1.overlayfs";

async function place(name: string, role: string, files: readonly string[]) {
  const carried = join(folder, name, "carried");
  const data = join(folder, name, "data");
  await mkdir(carried, { recursive: true });
  for (const file of files) {
    await mkdir(dirname(join(carried, file)), { recursive: true });
    await writeFile(join(carried, file), file);
  }
  const run = () =>
    execa(join(import.meta.dirname, "place.sh"), [role], { env: { CARRIED: carried, K3S_DATA: data } });
  await run();
  return { data, run };
}

const store = [
  "containerd/io.containerd.metadata.v1.bolt/meta.db",
  "containerd/io.containerd.content.v1.content/blobs/sha256/abc",
  `containerd/${snapshots}/metadata.db`,
  `containerd/${snapshots}/snapshots/1/fs/bin`,
];

test("a server gets manifests and images; databases are copied, blobs and unpacked images linked", async () => {
  const { data } = await place("server", "server", ["manifests/a.yaml", ...store]);
  assert.deepEqual(await readdir(join(data, "server/manifests")), ["a.yaml"]);
  const agent = join(data, "agent/containerd");
  for (const [file, isLink] of [
    ["io.containerd.metadata.v1.bolt/meta.db", false],
    ["io.containerd.content.v1.content/blobs/sha256/abc", true],
    [`${snapshots}/metadata.db`, false],
    [`${snapshots}/snapshots/1`, true],
  ] as const)
    assert.equal((await lstat(join(agent, file))).isSymbolicLink(), isLink, file);
  assert.match(await readFile(join(agent, snapshots, "snapshots/1/fs/bin"), "utf8"), /fs\/bin$/);
});

test("an agent gets only the images", async () => {
  const { data } = await place("agent", "agent", ["manifests/a.yaml", ...store]);
  assert.ok(!existsSync(join(data, "server")));
  assert.ok(existsSync(join(data, "agent/containerd")));
});

test("keeps what K3s has since written into its store", async () => {
  const { data, run } = await place("again", "server", store);
  const database = join(data, "agent/containerd/io.containerd.metadata.v1.bolt/meta.db");
  await writeFile(database, "changed by K3s");
  await run();
  assert.equal(await readFile(database, "utf8"), "changed by K3s");
});

test("a machine without prebuilt files, as with a released K3s, stays unchanged", async () => {
  const { data } = await place("bare", "server", []);
  assert.ok(!existsSync(data));
});
