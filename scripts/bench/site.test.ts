import assert from "node:assert/strict";
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { type TestContext, test } from "node:test";
import { root } from "../../stacks/lib/paths.ts";
import { readStackFile } from "../../stacks/model/config.ts";
import { fakeRun } from "../host/fake-run.ts";
import { inCopy, readExtent, requireContainers, withDockerHost } from "./site.ts";
import { rivals, substrates } from "./substrates.ts";

test("counts machines and apps from the stack files", async () => {
  const { machines } = await readStackFile("cluster", root);
  const { apps } = await readStackFile("apps", root);
  const { nodes, apps: count, pods, stacks } = await readExtent(substrates.cluster);
  assert.deepEqual([nodes, count, stacks], [machines.length, apps.length, "cluster apps"]);
  assert.ok(pods >= count);
});

test("compares SQLite on one server with etcd on three", async () => {
  const { machines } = await readStackFile("cluster", root);
  assert.equal(machines.filter(({ role }) => role === "server").length, 1);
  const { nodes, stacks } = await readExtent(rivals.etcd);
  assert.deepEqual([nodes, stacks], [4, "cluster-ha apps-ha"]);
});

test("passes the Docker host only to docker", async () => {
  const { run, commands } = fakeRun([/./, {}]);
  const there = withDockerHost("unix:///x.sock", run);
  await there(["docker", "ps"]);
  await there(["du", "/"]);
  assert.deepEqual(commands, ["docker --host unix:///x.sock ps", "du /"]);
});

test("refuses VMs before anything starts", async () => {
  const docker = { provider: "docker", reason: "" } as const;
  const libvirt = { provider: "libvirt", reason: "KVM runs guests here" } as const;
  const { cluster, k3d } = substrates;
  await requireContainers([cluster, rivals.etcd], async () => docker);
  await requireContainers([k3d], async () => libvirt);
  const answers = [docker, libvirt];
  await assert.rejects(
    requireContainers([cluster, rivals.etcd], async () => answers.shift() ?? docker),
    {
      name: "LabError",
      exitCode: 2,
      message:
        /^The machines of `cluster-ha` .* VMs of libvirt here \(KVM runs guests here\).*provider: docker/,
    },
  );
});

async function checkout(t: TestContext): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), "k3s-lab-checkout-"));
  t.after(() => rm(folder, { recursive: true }));
  for (const file of [".lab/id", "node_modules/x/index.js", "stacks/k3d.yaml"]) {
    await mkdir(dirname(join(folder, file)), { recursive: true });
    await writeFile(join(folder, file), file);
  }
  return folder;
}
const noLab = () => assert.fail("nothing is up");

test("changes to the copy affect neither the checkout nor its lab", async (t) => {
  const original = await checkout(t);
  const copy = await inCopy(
    async (folder) => {
      assert.deepEqual((await readdir(folder)).sort(), ["node_modules", "stacks"]);
      assert.equal(
        await readFile(join(folder, "node_modules/x/index.js"), "utf8"),
        "node_modules/x/index.js",
      );
      await writeFile(join(folder, "stacks/k3d.yaml"), "changed");
      return folder;
    },
    noLab,
    original,
  );
  assert.equal(await readFile(join(original, "stacks/k3d.yaml"), "utf8"), "stacks/k3d.yaml");
  await assert.rejects(readdir(copy), { code: "ENOENT" });
  assert.deepEqual(await readdir(join(original, "node_modules")), ["x"]);
});

test("keeps and names a copy whose lab cannot be taken down", async (t) => {
  const original = await checkout(t);
  const fails = (takeDown: () => Promise<void>) =>
    inCopy(() => Promise.reject(new Error("up broke")), takeDown, original);
  await assert.rejects(
    fails(async () => {}),
    /^Error: up broke$/,
  );
  const kept = await fails(() => Promise.reject(new Error("down broke"))).then(
    () => assert.fail("it failed"),
    (error: Error) => /Run `(.*)\/scripts\/lab down`.*: up broke$/.exec(error.message)?.[1] ?? "",
  );
  t.after(() => rm(kept, { recursive: true }));
  assert.equal(await readFile(join(kept, "stacks/k3d.yaml"), "utf8"), "stacks/k3d.yaml");
});
