import assert from "node:assert/strict";
import { once } from "node:events";
import { chmod, mkdtemp, rm, writeFile } from "node:fs/promises";
import { type AddressInfo, createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import type { LabError } from "../scripts/errors.ts";
import { root } from "../scripts/paths.ts";
import { type K3dFile, readK3dFile } from "./k3d-file.ts";
import { chooseK3dImages, refuseUnlessReady } from "./k3d-host.ts";

const file = await readK3dFile("stacks/k3d.yaml", root);
const folder = await mkdtemp(join(tmpdir(), "k3d-host-"));
after(() => rm(folder, { recursive: true }));

/** A port that nobody listens on, and a server that listens on another. */
const free = createServer();
await once(free.listen(0, "127.0.0.1"), "listening");
const freePort = (free.address() as AddressInfo).port;
free.close();
const other = createServer();
await once(other.listen(0, "127.0.0.1"), "listening");
after(() => other.close());
const takenPort = (other.address() as AddressInfo).port;

const onPort = (port: number): K3dFile => ({
  ...file,
  kubeAPI: { ...file.kubeAPI, hostPort: String(port) },
  ports: [],
});

/** Runs the check with programs that answer as told in the place of k3d and docker. */
async function refusal(
  port: number,
  { k3d = true, containers = "", image = true }: { k3d?: boolean; containers?: string; image?: boolean } = {},
  node: string | null = "built:1",
): Promise<string | undefined> {
  const bin = await mkdtemp(join(folder, "bin-"));
  const put = async (name: string, script: string) => {
    await writeFile(join(bin, name), `#!/bin/sh\n${script}\n`);
    await chmod(join(bin, name), 0o755);
  };
  if (k3d) await put("k3d", "echo k3d version");
  await put(
    "docker",
    `case $1 in ps) printf '%s' '${containers}' ;; image) ${image ? "exit 0" : "exit 1"} ;; esac`,
  );
  const path = process.env.PATH;
  process.env.PATH = bin;
  try {
    await refuseUnlessReady(onPort(port), { node: node ?? undefined, loadBalancer: false });
    return undefined;
  } catch (error) {
    assert.equal((error as LabError).exitCode, 2);
    return (error as LabError).message;
  } finally {
    process.env.PATH = path;
  }
}

test("what was built is used for its own release alone", () => {
  const environment = { LAB_K3D_IMAGE: "built:1", LAB_K3S_VERSION: "v1.25.4+k3s1" };
  assert.equal(chooseK3dImages(file, environment).node, "built:1");
  assert.equal(chooseK3dImages(file, { ...environment, LAB_K3S_VERSION: "v1.30.0+k3s1" }).node, undefined);
  assert.equal(chooseK3dImages(file, {}).loadBalancer, false);
  assert.equal(chooseK3dImages(file, { LAB_K3D_LOADBALANCER: "true" }).loadBalancer, true);
});

test("a computer that has k3d, the image and the ports is not refused", async () => {
  assert.equal(await refusal(freePort), undefined);
});

test("k3d that is missing is named first, with the command that brings it", async () => {
  assert.match(
    (await refusal(takenPort, { k3d: false })) ?? "",
    /^k3d was not found\. Run `scripts\/lab tools install k3d`/,
  );
});

test("a port that another program has", async () => {
  assert.match(
    (await refusal(takenPort)) ?? "",
    new RegExp(`cannot have port ${takenPort} of this computer`),
  );
});

test("a cluster that is there has its ports itself", async () => {
  assert.equal(await refusal(takenPort, { containers: "abc" }), undefined);
});

test("an image that was built and is gone", async () => {
  assert.match((await refusal(freePort, { image: false })) ?? "", /^Docker does not have the image built:1/);
});

test("an image that can be pulled is no reason, unless a cluster would have to go first", async () => {
  assert.equal(await refusal(freePort, { image: false }, null), undefined);
  const there = await refusal(freePort, { image: false, containers: "abc" }, null);
  assert.match(there ?? "", /does not have the image rancher\/k3s:v1\.25\.4-k3s1.*docker pull/);
});
