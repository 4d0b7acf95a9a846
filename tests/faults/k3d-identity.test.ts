import assert from "node:assert/strict";
import { after, beforeEach } from "node:test";
import { ownThings } from "../../scripts/down/left.ts";
import * as actions from "../../stacks/k3d/actions.ts";
import type { Cluster } from "../../stacks/k3d/cluster.ts";
import { ownerOf } from "../../stacks/k3d/docker.ts";
import { root } from "../../stacks/lib/paths.ts";
import { readK3dFile, serversOf } from "../../stacks/model/k3d-file.ts";
import { clusterConfig } from "../../stacks/model/k3d-nodes.ts";
import { existsInDocker, observeK3d } from "../../stacks/observe/k3d-host.ts";
import { type FakeContainer, fakeDocker, k3dNodes } from "./fake-docker.ts";
import { fault } from "./table.ts";

// Which container of k3d's a container is: what was copied, renamed or is no node of its cluster any more.

const fake = await fakeDocker();
after(() => fake.remove());
beforeEach(() => fake.set({}));

const stack = "k3d";
const owner = await ownerOf(stack);
const mine = { "k3s-lab.id": owner.id, "k3s-lab.stack": owner.stack };
const read = await readK3dFile("stacks/k3d.yaml", root);
const three = { ...read, servers: 3, agents: 1 };
const cluster: Cluster = { owner, name: "k3d", checkout: "/checkout" };
const input = { ...clusterConfig(three, { loadBalancer: false }), labels: {}, generation: "g1", boot: "b2" };

const node = k3dNodes(mine, three.image);
const [, second = "", third = ""] = serversOf(three);
const agent = "k3d-k3d-agent-0-0";
const whole = (changes: Readonly<Record<string, Partial<FakeContainer>>> = {}) => ({
  containers: [
    ...serversOf(three).map((name) => node(name, "server", changes[name])),
    node(agent, "agent", changes[agent]),
  ],
  networks: [{ name: "k3d-k3d", labels: mine }],
  volumes: [{ name: "k3d-k3d-images", labels: mine }],
});
const observe = () => fake.within(() => observeK3d(stack, three, "now"));
const problem = (work: () => Promise<unknown>): Promise<string> =>
  fake.within(work).then(
    () => "no error",
    (error: Error) => error.message,
  );
const names = async () => (await fake.world()).containers.map(({ name }) => name);

fault("a user's container from a commit of a server has its labels, but is not the server", async () => {
  const copy = node("backup", "server", { imageId: "sha256:committed", status: "exited" });
  await fake.set({ ...whole(), containers: [...whole().containers, copy], commits: ["sha256:committed"] });
  assert.ok(!(await observe()).containers.some(({ name }) => name === "backup"));
  const message = await problem(() => actions.removeCluster(owner));
  assert.match(message, /the lab did not create everything in it: backup/);
  await fake.set({ containers: [copy], networks: [], volumes: [], commits: ["sha256:committed"] });
  assert.equal(await fake.within(() => existsInDocker(stack, { role: "server" })), false);
  await fake.within(() => actions.removeAll(owner));
  assert.deepEqual(await fake.within(() => ownThings(["docker"])), []);
  return {
    happened: "it belongs to a user",
    lost: (await names()).includes("backup") ? "nothing" : "the copy",
  };
});

for (const renamed of [second, agent])
  fault(`the container ${renamed} was renamed: its node is not gone`, async () => {
    const world = whole();
    const containers = world.containers.map((one) =>
      one.name === renamed ? { ...one, name: "mine", hostname: renamed } : one,
    );
    await fake.set({ ...world, containers });
    const message = await problem(observe);
    assert.match(message, new RegExp(`docker rename mine ${renamed}`));
    return { happened: message.split(".")[0] ?? "", lost: "nothing" };
  });

fault("a server whose node was deleted has pods' local volumes: it is not recreated over them", async () => {
  await fake.set(whole({ [third]: { known: false, storage: "pvc-1_default_data" } }));
  const message = await problem(() => actions.start(cluster, input));
  assert.match(message, new RegExp(`${third}.*pvc-1_default_data.*docker cp ${third}:.*docker rm --force`));
  const removed = (await fake.changes()).filter((line) => line.startsWith("rm "));
  return {
    happened: "refused, with the way to save them",
    lost: removed.length > 0 ? "the volumes" : "nothing",
  };
});

fault("Docker loses the output of a command in a container and reports exit code 0", async () => {
  await fake.set({ ...whole(), loses: true });
  const message = await problem(observe);
  assert.match(message, /did not report whether its creation was completed/);
  assert.match(
    await problem(() => actions.create(cluster, input)),
    /did not report whether its creation was completed/,
  );
  return { happened: "an error", lost: (await names()).length === 4 ? "nothing" : "the cluster" };
});

fault("a truncated list of nodes: only a node that the cluster reports as missing is unknown", async () => {
  await fake.set(whole({ [third]: { listed: false } }));
  await fake.within(() => actions.start(cluster, input));
  const removed = (await fake.changes()).filter((line) => line.startsWith("rm "));
  return { happened: "the server stays", lost: removed.length > 0 ? third : "nothing" };
});
