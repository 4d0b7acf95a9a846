import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { promisify } from "node:util";
import { mockEngine, resourcesOf } from "./fake-engine.ts";
import type { VolumeKinds as Kinds } from "./volume-kinds.ts";

await mockEngine();
const { VolumeKinds } = await import("./volume-kinds.ts");

const args = { namespace: "dev", image: "web:1", static: { volume: "2Mi", claim: "1Mi" } };
async function make(dynamic: { claim: string; storageClass?: string }) {
  let kinds: Kinds | undefined;
  const made = await resourcesOf(() => {
    kinds = new VolumeKinds("volumes", { ...args, dynamic });
  });
  assert.ok(kinds);
  return { kinds, made: Object.fromEntries(made.map(({ name, inputs }) => [name, inputs])) };
}
const of = (storage: string) => ({
  accessModes: ["ReadWriteOnce"],
  resources: { requests: { storage } },
});

test("a PersistentVolume and its claim reference each other; a StorageClass provisions the other claim", async () => {
  const { made } = await make({ claim: "3Mi", storageClass: "fast" });
  const { spec, metadata } = made["volumes-static-volume"] as Record<string, Record<string, unknown>>;
  assert.equal(metadata?.name, "dev-static");
  assert.deepEqual(spec, {
    accessModes: ["ReadWriteOnce"],
    capacity: { storage: "2Mi" },
    hostPath: { path: "/run/k3s-lab-concepts/dev/static", type: "DirectoryOrCreate" },
    claimRef: { namespace: "dev", name: "static" },
    storageClassName: "",
    persistentVolumeReclaimPolicy: "Retain",
  });
  assert.deepEqual(made["volumes-static"]?.spec, {
    ...of("1Mi"),
    storageClassName: "",
    volumeName: "dev-static",
  });
  assert.deepEqual(made["volumes-dynamic"]?.spec, { ...of("3Mi"), storageClassName: "fast" });
});

test("without a class, the cluster's default is used", async () => {
  const { made } = await make({ claim: "3Mi" });
  assert.deepEqual(made["volumes-dynamic"]?.spec, of("3Mi"));
});

test("each pod start is recorded once per volume", async () => {
  const { kinds } = await make({ claim: "3Mi" });
  const [, flag = "", program = ""] = kinds.initContainer.command as string[];
  const folder = await mkdtemp(join(tmpdir(), "k3s-lab-volumes-"));
  const begin = (name: string) =>
    promisify(execFile)(process.execPath, [flag, program, folder], { env: { POD_NAME: name } });
  for (const [name, before] of [
    ["web-b", "no pod before"],
    ["web-a", "web-b"],
    ["web-b", "web-b, web-a"],
  ] as const)
    assert.equal((await begin(name)).stdout, `${folder}: ${before}\n`);
  assert.equal(await readFile(join(folder, "pods"), "utf8"), "web-b\nweb-a\n");
  await rm(folder, { recursive: true });
});

test("the writer is root without capabilities and sees only an in-memory host folder", async () => {
  const { kinds } = await make({ claim: "3Mi" });
  assert.deepEqual(kinds.initContainer.securityContext, {
    allowPrivilegeEscalation: false,
    readOnlyRootFilesystem: true,
    capabilities: { drop: ["ALL"] },
    ...{ runAsNonRoot: false, runAsUser: 0, runAsGroup: 0 },
  });
  const paths = kinds.volumes.flatMap(({ source }) => ("hostPath" in source ? [source.hostPath] : []));
  assert.deepEqual(paths, [{ path: "/run/k3s-lab-concepts/dev/host-path", type: "DirectoryOrCreate" }]);
});
