import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { once } from "node:events";
import { rm, symlink, writeFile } from "node:fs/promises";
import { type AddressInfo, createServer } from "node:net";
import { join } from "node:path";
import { after, beforeEach, test } from "node:test";
import { fakeDocker, freePort, type World } from "../../tests/faults/fake-docker.ts";
import { ownerOf } from "../k3d/docker.ts";
import type { LabError } from "../lib/errors.ts";
import { root } from "../lib/paths.ts";
import { type K3dFile, readK3dFile } from "../model/k3d-file.ts";
import { chooseK3dImages, existsInDocker, observeK3d, ownsInDocker } from "./k3d-host.ts";
import { preflightK3d, refuseUnlessReady } from "./k3d-ready.ts";

const fake = await fakeDocker();
after(() => fake.remove());
beforeEach(() => fake.set({}));

const file = await readK3dFile("stacks/k3d.yaml", root);
const { id } = await ownerOf("k3d");
const mine = { "k3s-lab.id": id, "k3s-lab.stack": "k3d" };

/** A port that nobody listens on, and a server that listens on another. */
const free = await freePort();
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
async function refusal(of: K3dFile, world: Partial<World> = {}, node: string | undefined = "built:1") {
  await fake.set(world);
  try {
    await fake.within(async () =>
      refuseUnlessReady("k3d", of, { node, loadBalancer: false }, await observeK3d("k3d", of)),
    );
    return undefined;
  } catch (error) {
    assert.equal((error as LabError).exitCode, 2);
    return (error as LabError).message;
  }
}

test("a built image is used only for its own release", () => {
  const k3dImage = "k3s-lab/k3d:v1.25.4-k3s1-abc";
  assert.equal(chooseK3dImages(file, [], { k3dImage }).node, k3dImage);
  const newer = { ...file, image: "rancher/k3s:v1.30.0-k3s1" };
  assert.equal(chooseK3dImages(newer, [], { k3dImage }).node, undefined);
  assert.equal(chooseK3dImages(file, [], {}).loadBalancer, false);
  assert.equal(chooseK3dImages(file, [], { k3dLoadBalancer: true }).loadBalancer, true);
  const without: K3dFile = { ...file, options: { ...file.options, k3d: { disableLoadbalancer: true } } };
  assert.equal(chooseK3dImages(without, [], { k3dLoadBalancer: true }).loadBalancer, false);
});

test("accepts a machine with k3d, the image and free ports", async () => {
  assert.equal(await refusal(onPort(free)), undefined);
});

test("missing k3d is reported first, with the command to install it", async () => {
  const without = await fakeDocker();
  await rm(join(without.bin, "k3d"));
  const { PATH } = process.env;
  process.env.PATH = without.bin;
  try {
    await assert.rejects(
      async () =>
        refuseUnlessReady("k3d", onPort(takenPort), { loadBalancer: false }, await observeK3d("k3d", file)),
      /k3d was not found\. Run `scripts\/lab tools install k3d`/,
    );
  } finally {
    process.env.PATH = PATH;
    await without.remove();
  }
});

test("reports a port that another program uses", async () => {
  assert.match(
    (await refusal(onPort(takenPort))) ?? "",
    new RegExp(`cannot have port ${takenPort} of 127.0.0.1`),
  );
});

test("a node that a user added to the lab's own cluster is no conflict", async () => {
  const labels = { app: "k3d", "k3d.cluster": "k3d", "k3d.role": "agent" };
  const server = {
    ...{ name: "k3d-k3d-server-0", status: "running" },
    labels: { ...mine, ...labels, "k3d.role": "server" },
  };
  const byHand = { name: "k3d-extra-0", status: "running", labels };
  assert.equal(await refusal(onPort(free), { containers: [server, byHand] }), undefined);
  assert.match(
    (await refusal(onPort(free), { containers: [byHand] })) ?? "",
    /created by somebody else \(container k3d-extra-0\)/,
  );
});

test("reports a missing registry", async () => {
  const used = { ...onPort(free), registries: { use: ["mine:5000"] } };
  assert.match((await refusal(used)) ?? "", /registries\.use: mine:5000: there is no k3d registry mine/);
});

test("reports a missing folder", async () => {
  const volumes = [{ volume: "/no/such/folder:/x", nodeFilters: ["server:*"] }];
  assert.match(
    (await refusal({ ...onPort(free), volumes })) ?? "",
    /this computer has no \/no\/such\/folder/,
  );
});

test("leaves a folder that this user cannot read to Docker", async () => {
  const loop = join(fake.bin, "loop");
  await symlink(loop, loop);
  const volumes = [{ volume: `${loop}:/x`, nodeFilters: ["server:*"] }];
  assert.equal(await refusal({ ...onPort(free), volumes }), undefined);
});

test("before tools are installed: without Docker nothing exists; without an answer nothing counts as gone", async () => {
  const stacks = [["k3d", onPort(free)]] as const;
  const socket = join(fake.bin, "docker.sock");
  for (const broken of [
    `failed to connect to the docker API at unix://${socket}; check if the path is correct and if the daemon is running: dial unix ${socket}: connect: no such file or directory`,
    `Cannot connect to the Docker daemon at unix://${socket}. Is the docker daemon running?`,
  ]) {
    await fake.set({ broken });
    assert.deepEqual(await fake.within(() => preflightK3d(stacks)), new Set());
    assert.equal(await fake.within(() => ownsInDocker("k3d")), false);
  }
  // The same words, of a daemon that was killed and left its socket.
  await writeFile(socket, "");
  assert.deepEqual(await fake.within(() => preflightK3d(stacks)), new Set(["k3d"]));
  await assert.rejects(
    fake.within(() => ownsInDocker("k3d")),
    /Could not check what .* was killed, and its containers may still run.*systemctl start docker/,
  );
  await fake.set({ broken: "permission denied while trying to connect to the Docker daemon socket" });
  await assert.rejects(
    fake.within(() => preflightK3d(stacks)),
    /permission denied.*Nothing is treated as missing/s,
  );
});

test("a new cluster gets no quota at which etcd soon stops for good, and one that has it keeps it", async () => {
  const of = onPort(free);
  const extraArgs = [{ arg: "--etcd-arg=quota-backend-bytes=8", nodeFilters: ["server:*"] }];
  const small = { ...of, options: { ...of.options, k3s: { ...of.options.k3s, extraArgs } } };
  const said = await refusal(small);
  assert.match(
    said ?? "",
    /extraArgs: --etcd-arg.* expected quota-backend-bytes with 2147483648 or more bytes/,
  );
  const labels = { ...mine, "k3d.cluster": "k3d", "k3d.role": "server", "k3s-lab.generation": "g" };
  const server = { name: "k3d-k3d-server-0", status: "running", labels };
  assert.equal(await refusal(small, { containers: [server] }), undefined);
});

test("reads a server's start time and its kubeconfig's certificate together", async () => {
  const labels = { ...mine, "k3d.cluster": "k3d", "k3d.role": "server", "k3s-lab.generation": "g" };
  const server = { name: "k3d-k3d-server-0", status: "running", labels, boot: "b", certificate: "Y2VydA==" };
  await fake.set({ containers: [server] });
  const { cluster, certificates } = await fake.within(() => observeK3d("k3d", file, "now"));
  assert.deepEqual(cluster, { generation: "g", boot: "b" });
  assert.deepEqual(certificates, [createHash("sha256").update("Y2VydA==").digest("hex")]);
});

test("finds what exists by labels, whatever its name", async () => {
  const labels = { ...mine, "k3d.role": "server" };
  await fake.set({ containers: [{ name: "old-name", status: "paused", labels }] });
  assert.equal(await fake.within(() => existsInDocker("k3d", { role: "server" })), true);
  assert.equal(await fake.within(() => existsInDocker("k3d-ha", { role: "server" })), false);
  assert.equal(await fake.within(() => existsInDocker("k3d", { name: "k3d-k3d-agent-0-0" })), false);
  await fake.set({ volumes: [{ name: "k3d-k3d-images", labels: mine }] });
  assert.equal(await fake.within(() => ownsInDocker("k3d")), true);
});
