import assert from "node:assert/strict";
import { once } from "node:events";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { type AddressInfo, createServer } from "node:net";
import { tmpdir } from "node:os";
import { delimiter, dirname, join } from "node:path";
import { after, beforeEach } from "node:test";
import { execa } from "execa";
import pWaitFor from "p-wait-for";
import { stringify } from "yaml";
import * as actions from "../../stacks/k3d/actions.ts";
import * as agents from "../../stacks/k3d/agents.ts";
import type { AgentInput, Cluster, RegistryInput, ServersInput } from "../../stacks/k3d/cluster.ts";
import { ownerOf } from "../../stacks/k3d/docker.ts";
import { pinAll } from "../../stacks/k3d/network.ts";
import { makeRegistry } from "../../stacks/k3d/registry.ts";
import type { LabError } from "../../stacks/lib/errors.ts";
import { root } from "../../stacks/lib/paths.ts";
import { words } from "../../stacks/lib/words.ts";
import { type K3dFile, readK3dFile, serversOf } from "../../stacks/model/k3d-file.ts";
import { balancerOf, clusterConfig, clusterIdentity, nodeConfig } from "../../stacks/model/k3d-nodes.ts";
import { chooseK3dImages, existsInDocker, observeK3d } from "../../stacks/observe/k3d-host.ts";
import { preflightK3d, refuseTakenPorts, refuseUnlessReady } from "../../stacks/observe/k3d-ready.ts";
import { type FakeContainer, fakeDocker, freePort, k3dNodes, type World } from "./fake-docker.ts";
import { fault, refused } from "./table.ts";

const fake = await fakeDocker();
after(() => fake.remove());
beforeEach(() => fake.set({}));

const stack = "k3d";
const owner = await ownerOf(stack);
const mine = { "k3s-lab.id": owner.id, "k3s-lab.stack": owner.stack };
const taken = createServer();
await once(taken.listen(0, "127.0.0.1"), "listening");
after(() => taken.close());
const read = await readK3dFile("stacks/k3d.yaml", root);
const file: K3dFile = {
  ...read,
  kubeAPI: { ...read.kubeAPI, hostPort: String(await freePort()) },
  ports: [],
};
const three: K3dFile = { ...file, servers: 3, agents: 1, ports: read.ports };
const images = { loadBalancer: false };
const cluster: Cluster = { owner, name: "k3d", checkout: "/checkout" };

const node = k3dNodes(mine, file.image);
const whole = (changes: Readonly<Record<string, Partial<FakeContainer> | undefined>> = {}): World => ({
  containers: [
    ...serversOf(three).map((name) => node(name, "server")),
    node("k3d-k3d-agent-0-0", "agent"),
  ].flatMap((one) => {
    if (!(one.name in changes)) return [one];
    const change = changes[one.name];
    return change ? [{ ...one, ...change }] : [];
  }),
  networks: [{ name: "k3d-k3d", labels: mine }],
  volumes: [{ name: "k3d-k3d-images", labels: mine }],
});
const input = (of: K3dFile, boot = "b2"): ServersInput => ({
  ...{ ...clusterConfig(of, images), labels: {}, generation: "g1", boot },
});
const agentInput = (): AgentInput => ({
  ...{ name: "k3d-k3d-agent-0-0", index: 0, config: nodeConfig(three, { role: "agent", index: 0 }) },
  ...{ hosts: [], identity: "i1", generation: "g1", boot: "b2" },
});
const registryInput = (...volumes: string[]): RegistryInput => ({
  ...{ name: "r.localhost", image: "r:1", address: "127.0.0.1", port: "5050", env: [], boot: "b", volumes },
});
/** The members of etcd that the three servers are; the first has one that has not started in the other list. */
const members = serversOf(three).map((name, index) => ({
  name: `${name}-0123abc${index}`,
  address: node(name, "server").address ?? "",
}));
const unstarted = members.map((one, index) => (index === 0 ? { address: one.address } : one));
const thrown = async (work: () => Promise<unknown>): Promise<LabError | undefined> => {
  try {
    await fake.within(work);
    return undefined;
  } catch (error) {
    return error as LabError;
  }
};
/** The containers that were made, by the arguments of `docker create`. */
const created = async () => (await fake.changes()).filter((line) => line.startsWith("create "));
const observe = (of: K3dFile = three) => fake.within(() => observeK3d(stack, of, "now"));
/** What has the name of a container that was removed or that is not what it was. */
const lost = async (before: World, ...may: string[]): Promise<string> => {
  const { containers, networks, volumes } = await fake.world();
  const names = (world: Pick<World, "containers" | "networks" | "volumes">) =>
    [...world.containers, ...world.networks, ...world.volumes].map(({ name }) => name);
  const left = names({ containers, networks, volumes });
  const gone = names(before).filter((name) => !left.includes(name) && !may.includes(name));
  return gone.length ? gone.join(", ") : "nothing";
};

// Whatever is awaited comes before the first test: hooks for the end run as soon as no test is left.

const takenPort = String((taken.address() as AddressInfo).port);
const onTaken: K3dFile = {
  ...three,
  ports: [{ port: `127.0.0.1:${takenPort}:80`, nodeFilters: ["loadbalancer"] }],
};
const holding = (port: string) => ({ ports: { "80/tcp": [{ HostIp: "127.0.0.1", HostPort: port }] } });

const folder = await mkdtemp(join(tmpdir(), "k3s-lab-k3d-faults-"));
after(() => rm(folder, { recursive: true }));
await writeFile(join(folder, "here.yaml"), "a: 1\n");

fault("C8: one of three server containers is gone: only it is recreated, and joins the others", async () => {
  const before = { ...whole({ "k3d-k3d-server-0": undefined }), members };
  await fake.set(before);
  const seen = await observe();
  assert.deepEqual(seen.cluster, { generation: "g1", boot: "now" }, "an update, no replacement");
  assert.equal(seen.servers.get("k3d-k3d-server-0"), "now", "images are loaded again");
  await fake.within(() => actions.start(cluster, input(three)));
  const changes = await fake.changes();
  const created = changes.filter((line) => line.startsWith("create "));
  assert.equal(created.length, 1);
  assert.match(created[0] ?? "", /--name k3d-k3d-server-0 --hostname k3d-k3d-server-0/);
  assert.match(created[0] ?? "", /--publish 127\.0\.0\.1:\d+:6443 --publish 127\.0\.0\.1:8081:80/);
  assert.doesNotMatch(created[0] ?? "", /very-secret|cluster-init/);
  const told = changes.join("\n");
  assert.deepEqual((await fake.world()).members, members.slice(1), "its member is gone, the others' are not");
  assert.match(told, /delete .*secret k3d-k3d-server-0\.node-password\.k3s/);
  assert.equal((await observe()).cluster.boot, "b2");
  return { happened: "update in place, one container created, three servers", lost: await lost(before) };
});

for (const [what, world] of [
  ["etcd never had it", { members: members.slice(1), unmarked: ["k3d-k3d-server-0"] }],
  ["its member has a name", { members, unmarked: ["k3d-k3d-server-0"] }],
  ["its member has not started", { members: unstarted, unmarked: ["k3d-k3d-server-0"] }],
  ["its node was deleted, its member was not", { members, unmade: ["k3d-k3d-server-0"] }],
] satisfies [string, Partial<World>][])
  fault(`a server was lost before K3s labelled its node as an etcd member: ${what}`, async () => {
    const before = { ...whole({ "k3d-k3d-server-0": undefined }), ...world };
    await fake.set(before);
    await fake.within(() => actions.start(cluster, input(three)));
    assert.equal((await created()).length, 1);
    assert.deepEqual((await fake.world()).members, members.slice(1));
    return { happened: "removed from etcd, recreated, joined", lost: await lost(before) };
  });

fault("a member that is joining, at a container's address or elsewhere, is not removed", async () => {
  const joining = [{ address: "172.28.0.17" }, { address: "10.1.2.3" }];
  const before = {
    ...whole({ "k3d-k3d-server-0": undefined }),
    members: [...members.slice(1), ...joining],
  };
  await fake.set(before);
  await fake.within(() => actions.start(cluster, input(three)));
  assert.deepEqual((await fake.world()).members, before.members);
  return { happened: "left alone", lost: await lost(before) };
});

fault("k3d's load balancer is gone: only it is recreated, with the servers' addresses", async () => {
  const balanced = { ...file, servers: 3, ports: read.ports };
  const labels = { "k3d.server.loadbalancer": "k3d-k3d-serverlb", "k3d.version": "v5.8.3" };
  const before = {
    ...whole(),
    containers: whole().containers.map((one) => ({ ...one, labels: { ...one.labels, ...labels } })),
  };
  await fake.set(before);
  const seen = await observe();
  assert.deepEqual(seen.cluster, { generation: "g1", boot: "now" }, "an update, no replacement");
  const balancer = balancerOf(balanced, { loadBalancer: true });
  await fake.within(() => actions.start(cluster, { ...input(balanced), balancer }));
  const made = await created();
  assert.match(
    made.join("\n"),
    /--name k3d-k3d-serverlb .*--publish 127\.0\.0\.1:\d+:6443 --publish 127\.0\.0\.1:8081:80 .* ghcr\.io\/k3d-io\/k3d-proxy:5\.8\.3$/,
  );
  assert.deepEqual(balancer?.targets["80.tcp"], serversOf(three));
  return { happened: "update in place, one container created", lost: await lost(before) };
});

fault("C8: two of three servers are gone: no silent new cluster, and the way back is shown", async () => {
  const before = whole({ "k3d-k3d-server-0": undefined, "k3d-k3d-server-2": undefined });
  await fake.set({ ...before, breaks: { on: "get nodes", says: "etcdserver: request timed out" } });
  const error = await thrown(() => observeK3d(stack, three));
  assert.match(
    error?.message ?? "",
    /lost k3d-k3d-server-0 and k3d-k3d-server-2 of its 3 servers.*'A cluster that lost most of its servers'/,
  );
  assert.match((await thrown(() => actions.start(cluster, input(three))))?.message ?? "", /no majority/);
  assert.deepEqual(await fake.changes(), []);
  return { happened: "exit 1 in preview and up", lost: await lost(before) };
});

fault("C8: two of three are gone and the remaining one was reset: they rejoin it", async () => {
  const before = whole({ "k3d-k3d-server-0": undefined, "k3d-k3d-server-2": undefined });
  await fake.set(before);
  assert.deepEqual((await observe()).cluster, { generation: "g1", boot: "now" }, "an update, no replacement");
  await fake.within(() => actions.start(cluster, input(three)));
  const made = await created();
  assert.equal(made.length, 2);
  assert.equal((await observe()).cluster.boot, "b2");
  return { happened: "both recreated; they join the one that answers", lost: await lost(before) };
});

fault("a server's repair was interrupted: it is recreated, and the next run changes nothing", async () => {
  const { labels } = node("k3d-k3d-server-1", "server");
  const half = { status: "created", made: false, boot: "", labels: { ...labels, "k3s-lab.made": "b1" } };
  const before = whole({ "k3d-k3d-server-1": half });
  await fake.set(before);
  assert.deepEqual((await observe()).cluster, { generation: "g1", boot: "now" });
  await fake.within(() => actions.start(cluster, input(three)));
  const changes = (await fake.changes()).filter((line) => /^(rm|create) /.test(line));
  assert.match(changes.join("\n"), /^rm .*k3d-k3d-server-1\ncreate --name k3d-k3d-server-1 /);
  assert.equal((await observe()).cluster.boot, "b2");
  return { happened: "only that server is recreated", lost: await lost(before) };
});

fault("a first run was interrupted between marking its servers: the cluster is complete", async () => {
  const before = whole({ "k3d-k3d-server-1": { made: false }, "k3d-k3d-server-2": { made: false } });
  await fake.set(before);
  assert.deepEqual((await observe()).cluster, { generation: "g1", boot: "b1" });
  await fake.within(() => actions.create(cluster, input(three)));
  assert.deepEqual(await fake.changes(), []);
  return { happened: "no change", lost: await lost(before) };
});

fault("a server removed from etcd that started its own cluster does not speak for the others", async () => {
  const before = whole({ "k3d-k3d-server-0": { alone: true } });
  await fake.set(before);
  assert.deepEqual((await observe()).agents.get("k3d-k3d-agent-0-0"), { generation: "g1", boot: "b1" });
  assert.deepEqual((await observe()).cluster, { generation: "g1", boot: "now" });
  await fake.within(() => actions.start(cluster, input(three)));
  const made = await created();
  assert.equal(made.length, 1);
  assert.match(made.join(), /^create --name k3d-k3d-server-0 /);
  return { happened: "only that server is recreated", lost: await lost(before) };
});

fault("Docker does not say whether a server has its tunnel: its interface stays", async () => {
  const server = { ...node("k3d-k3d-server-0", "server"), fixed: "" };
  const before = { ...whole(), containers: [server] };
  const pin = async (says: string) => {
    await fake.set({ ...before, breaks: { on: "subnet.env", says } });
    const error = await thrown(() => pinAll(cluster, "172.28.0.0/16"));
    return [
      error?.message,
      (await fake.changes()).filter((line) => line.startsWith("network ")).length,
    ] as const;
  };
  const [message, changed] = await pin("Error response from daemon: context deadline exceeded");
  assert.match(message ?? "", /docker exec k3d-k3d-server-0\): .*deadline exceeded/);
  assert.equal(changed, 0);
  // In Docker's words, and in none: `test` says no by its exit code alone.
  for (const no of ["Error response from daemon: container abc is not running", ""])
    assert.deepEqual(await pin(no), [undefined, 2]);
  return { happened: 'an error; a clear "no" counts as no', lost: await lost(before) };
});

fault("a dead server that Docker cannot read: only it is recreated", async () => {
  const before = whole({ "k3d-k3d-server-1": { status: "dead" } });
  await fake.set({
    ...before,
    breaks: { on: "cp k3d-k3d-server-1:", says: "Error response from daemon: layer" },
  });
  assert.deepEqual((await observe()).cluster, { generation: "g1", boot: "now" });
  await fake.set(before);
  await fake.within(() => actions.start(cluster, input(three)));
  assert.match(
    (await fake.changes()).join("\n"),
    /^rm .*k3d-k3d-server-1\n[\s\S]*^create --name k3d-k3d-server-1 /m,
  );
  return { happened: "recreated, joined the others", lost: await lost(before) };
});

fault("another user's container has a lost server's name: it is left alone", async () => {
  const theirs: FakeContainer = { name: "k3d-k3d-server-1", status: "exited", labels: {} };
  const before = whole({ "k3d-k3d-server-1": undefined });
  const world = { ...before, containers: [...before.containers, theirs] };
  await fake.set(world);
  const error = await thrown(() => actions.start(cluster, input(three)));
  assert.equal(error?.exitCode, 2);
  assert.match(
    error?.message ?? "",
    /container k3d-k3d-server-1 already exists and does not belong to this stack/,
  );
  assert.doesNotMatch((await fake.changes()).join("\n"), /^rm /m);
  return { happened: "exit 2", lost: await lost(world) };
});

fault("etcd does not say whether a lost server is a member: no server joins", async () => {
  const before = whole({ "k3d-k3d-server-1": undefined });
  await fake.set({ ...before, breaks: { on: "/db/info", says: "Unable to connect" } });
  const error = await thrown(() => actions.start(cluster, input(three)));
  assert.match(
    error?.message ?? "",
    /etcd does not say whether k3d-k3d-server-1 is still a member within 20 s/,
  );
  assert.doesNotMatch((await fake.changes()).join("\n"), /^create /m);
  // Its node is held by a finalizer; deleted later, it would take the next of its name with it.
  await fake.set({ ...before, breaks: { on: "not-found node k3d-k3d-server-1", says: "timed out" } });
  const stays = await thrown(() => actions.start(cluster, input(three)));
  assert.match(stays?.message ?? "", /The cluster still knows k3d-k3d-server-1: timed out/);
  assert.doesNotMatch((await fake.changes()).join("\n"), /^create /m);
  return { happened: "exit 1", lost: await lost(before) };
});

fault("a user's container is in the cluster's network: nothing is removed until it has left", async () => {
  const world = whole();
  const guest: FakeContainer = { name: "theirs", status: "running", labels: {}, address: "172.28.0.99" };
  const before = { ...world, containers: [...world.containers, guest] };
  await fake.set(before);
  for (const remove of [actions.removeCluster, actions.removeAll]) {
    const error = await thrown(() => remove(owner));
    assert.match(
      error?.message ?? "",
      /the lab did not create everything in it: theirs\. Nothing was removed/,
    );
  }
  assert.deepEqual(await fake.changes(), []);
  return { happened: "exit 1 with the next step", lost: await lost(before) };
});

fault("Docker does not say whether it has the image: it is not reported as missing", async () => {
  await fake.set({
    ...whole(),
    breaks: { on: "image inspect", says: "Error response from daemon: deadline" },
  });
  const seen = await observe();
  const error = await thrown(() => refuseUnlessReady(stack, file, images, seen));
  assert.match(error?.message ?? "", /docker image inspect .*deadline/);
  return { happened: "exit 1 with Docker's message", lost: await lost(whole()) };
});

for (const [what, answer] of [
  [
    "Docker does not run",
    "Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?",
  ],
  [
    "Docker refuses this user",
    "permission denied while trying to connect to the Docker daemon socket at unix:///var/run/docker.sock",
  ],
  ["an error in Docker", "Error response from daemon: context deadline exceeded"],
] as const)
  fault(`C3: ${what}: nothing counts as gone`, async () => {
    await fake.set({ ...whole(), broken: answer });
    for (const work of [
      () => observeK3d(stack, three),
      () => actions.start(cluster, input(three)),
      () => actions.removeCluster(owner),
      () => agents.addAgent(cluster, agentInput()),
    ]) {
      const error = await thrown(work);
      assert.equal(error?.name, "LabError");
      assert.ok(error?.message.includes(answer), error?.message);
    }
    return { happened: "exit 1 with Docker's message", lost: await lost(whole()) };
  });

for (const status of ["paused", "exited", "created"])
  fault(`C3: a server and an agent that are ${status} exist, and are started again`, async () => {
    const before = whole({
      "k3d-k3d-server-1": { status, boot: "b1" },
      "k3d-k3d-agent-0-0": { status, boot: "b1" },
    });
    await fake.set(before);
    const seen = await observe();
    assert.deepEqual(seen.cluster, { generation: "g1", boot: "now" });
    assert.deepEqual(seen.agents.get("k3d-k3d-agent-0-0"), { generation: "g1", boot: "now" });
    await fake.within(() => actions.start(cluster, input(three)));
    await fake.within(() => agents.startAgent(cluster, agentInput()));
    const verbs = (await fake.changes()).map((line) => line.split(" ").slice(0, 2).join(" "));
    const verb = status === "paused" ? "unpause" : "start";
    assert.deepEqual(verbs, [`${verb} k3d-k3d-server-1`, `${verb} k3d-k3d-agent-0-0`]);
    const now = await observe();
    assert.deepEqual([now.cluster.boot, now.agents.get("k3d-k3d-agent-0-0")?.boot], ["b2", "b2"]);
    return { happened: `docker ${verb}, in place`, lost: await lost(before) };
  });

fault("C3: after a Docker restart the same containers run: an update, no replacement", async () => {
  await fake.set(whole(Object.fromEntries(serversOf(three).map((name) => [name, { boot: "" }]))));
  const { cluster: seen } = await observe();
  assert.deepEqual(seen, { generation: "g1", boot: "now" });
  return { happened: "update in place", lost: "nothing" };
});

fault("H6: an agent's node was deleted: its K3s restarts and the node is back", async () => {
  const before = whole({ "k3d-k3d-agent-0-0": { known: false } });
  await fake.set(before);
  const seen = await observe();
  assert.deepEqual(seen.agents.get("k3d-k3d-agent-0-0"), { generation: "g1", boot: "now" });
  assert.equal(seen.cluster.boot, "b1");
  await fake.within(() => agents.startAgent(cluster, agentInput()));
  assert.match((await fake.changes()).join("\n"), /^restart .*k3d-k3d-agent-0-0$/m);
  assert.equal((await observe()).agents.get("k3d-k3d-agent-0-0")?.boot, "b2");
  return { happened: "update in place", lost: await lost(before) };
});

fault("H6: one of three servers' nodes was deleted, with its etcd membership: it rejoins", async () => {
  const before = whole({ "k3d-k3d-server-0": { known: false } });
  await fake.set(before);
  const seen = await observe();
  assert.deepEqual(seen.cluster, { generation: "g1", boot: "now" }, "an update, no replacement");
  await fake.within(() => actions.start(cluster, input(three)));
  const made = await created();
  assert.match(made.join("\n"), /^create --name k3d-k3d-server-0 /);
  assert.equal((await observe()).cluster.boot, "b2");
  return { happened: "only that server is recreated; it joined the others", lost: await lost(before) };
});

fault("only a lost agent is recreated", async () => {
  const before = whole({ "k3d-k3d-agent-0-0": undefined });
  await fake.set(before);
  const seen = await observe();
  assert.deepEqual(seen.cluster, { generation: "g1", boot: "b1" });
  assert.deepEqual(seen.agents.get("k3d-k3d-agent-0-0"), { generation: "now", boot: "now" });
  await fake.within(() => agents.addAgent(cluster, agentInput()));
  const made = await created();
  assert.match(made.join("\n"), /--name k3d-k3d-agent-0-0 .* --ip 172\.28\.255\.254 .* agent$/);
  return { happened: "one container created; it joins a server that answers", lost: await lost(before) };
});

fault("an agent that is not Ready yet: the next one waits, since its pods must move", async () => {
  const before = whole({ "k3d-k3d-agent-0-0": undefined });
  await fake.set({ ...before, notReady: 8 });
  const added = fake.within(() => agents.addAgent(cluster, agentInput()));
  // It takes pods from now on, whatever becomes of this run: the next one must not take it for half made.
  const marked = pWaitFor(
    async () => {
      const { containers, notReady } = await fake.world();
      const isMade = containers.some(({ name, made }) => name === "k3d-k3d-agent-0-0" && made === true);
      return isMade && pWaitFor.resolveWith(notReady ?? 0);
    },
    { interval: 20, timeout: 120_000 },
  );
  const [asksLeft] = await Promise.all([marked, added]);
  assert.ok(asksLeft > 0, "marked as made before it is Ready");
  assert.equal((await fake.world()).notReady, 0, "asked until it is Ready");
  await fake.set({ ...whole({ "k3d-k3d-agent-0-0": { boot: "b1" } }), notReady: 2 });
  await fake.within(() => agents.startAgent(cluster, agentInput()));
  assert.equal((await fake.world()).notReady, 0, "one that is started too");
  const servers = before.containers.map((one) => ({ ...one, ready: false }));
  await fake.set({ ...before, containers: servers, notReady: 1_000 });
  await fake.within(() => agents.addAgent(cluster, agentInput()));
  assert.equal((await fake.world()).notReady, 999, "a cluster whose network is still to come");
  return { happened: "waits until it is Ready", lost: await lost(before) };
});

fault(
  "k3d gives servers a world-readable registries.yaml: it becomes readable by root only, in older clusters too",
  async () => {
    const hidden = async () =>
      (await fake.world()).containers.flatMap(({ name, hidden }) => (hidden ? [name] : []));
    await fake.within(() => actions.create(cluster, input(three)));
    assert.deepEqual(await hidden(), serversOf(three));
    const before = whole();
    await fake.set(before);
    await fake.within(() => actions.start(cluster, input(three)));
    assert.deepEqual(await hidden(), serversOf(three));
    return { happened: "mode 0600, unless it is mounted from this computer", lost: await lost(before) };
  },
);

fault("a user with umask 077: a node gets the file modes that it needs", async () => {
  const before = whole({ "k3d-k3d-agent-0-0": undefined });
  await fake.set(before);
  const files = ["/srv/here.yaml", "/etc/rancher/k3s/registries.yaml"].map((destination) => {
    return { source: join(folder, "here.yaml"), destination };
  });
  const umask = process.umask(0o077);
  try {
    const asked = agentInput();
    await fake.within(() => agents.addAgent(cluster, { ...asked, config: { ...asked.config, files } }));
  } finally {
    process.umask(umask);
  }
  const modes = (await fake.changes()).flatMap((line) => /^mode (.*)/.exec(line)?.[1] ?? []);
  assert.deepEqual(
    modes.filter((line) => !line.includes("/bin/")),
    ["600 /etc/rancher/k3s/registries.yaml", "644 /srv/here.yaml", "600 /etc/rancher/k3s/registries.yaml"],
    "no folder of the node's gets another mode",
  );
  return {
    happened: "the modes that k3d sets; registries.yaml, which may hold passwords, only for root",
    lost: await lost(before),
  };
});

for (const status of ["running", "exited"])
  fault(
    `removing an agent that is ${status}: its pods move first, even those without a controller`,
    async () => {
      const before = whole({ "k3d-k3d-agent-0-0": { status } });
      await fake.set(before);
      await fake.within(() => agents.removeAgent(cluster, "k3d-k3d-agent-0-0"));
      const told = (await fake.changes()).join("\n");
      if (status === "running")
        assert.match(told, /drain k3d-k3d-agent-0-0 .*--force.*\n[\s\S]*^rm .*agent-0-0$/m);
      else assert.doesNotMatch(told, / drain /, "nobody there could end its pods");
      return {
        happened: "drained where it runs, then removed",
        lost: await lost(before, "k3d-k3d-agent-0-0"),
      };
    },
  );

fault("C12: k3d's load balancer image becomes available later: the cluster stays unchanged", async () => {
  await fake.set(whole());
  const { containers } = await observe();
  const later = { k3dLoadBalancer: true, k3dImage: "k3s-lab/k3d:v1.25.4-k3s1-2" };
  assert.equal(chooseK3dImages(three, [], later).loadBalancer, true);
  assert.deepEqual(chooseK3dImages(three, containers, later), chooseK3dImages(three, containers, {}));
  const balanced = whole().containers.map((one) => ({
    ...one,
    labels: { ...one.labels, "k3d.server.loadbalancer": "k3d-k3d-serverlb" },
  }));
  await fake.set({ ...whole(), containers: balanced });
  const seen = await observe();
  assert.equal(chooseK3dImages(three, seen.containers, {}).loadBalancer, true);
  return { happened: "read from the containers' labels", lost: "nothing" };
});

refused(
  "C10: a running cluster's port is changed to one that another program has",
  async () => {
    await fake.set(whole());
    return await thrown(async () => {
      const seen = await observeK3d(stack, onTaken);
      await refuseUnlessReady(stack, onTaken, images, seen);
    });
  },
  /cannot have port \d+ of 127\.0\.0\.1 \(ports\[0\]\.port\): another program listens on it/,
);

fault("C10: ports that the cluster itself uses are free for it, also under another name (H11)", async () => {
  const old = whole({ "k3d-k3d-server-0": holding(takenPort) });
  await fake.set(old);
  const renamed = { ...onTaken, metadata: { name: "renamed" } };
  for (const one of [onTaken, renamed])
    await fake.within(async () => refuseTakenPorts(one, (await observeK3d(stack, one)).containers));
  const seen = await observe(renamed);
  assert.equal(seen.cluster.generation, "now", "a replacement, which is asked for");
  assert.notEqual(await clusterIdentity(renamed), await clusterIdentity(onTaken));
  await fake.within(() => actions.removeCluster(owner));
  const { containers } = await fake.world();
  assert.deepEqual(containers, [], "the old one goes by its labels, whatever it is called");
  return { happened: "a replacement that succeeds", lost: "nothing" };
});

refused(
  "a port that another stack's running cluster holds",
  async () => {
    const other = { "k3s-lab.id": owner.id, "k3s-lab.stack": "k3d-ha", "k3s-lab.checkout": "/checkout" };
    await fake.set({
      containers: [{ ...node("k3d-k3d-ha-server-0", "server", holding(takenPort)), labels: other }],
    });
    return await thrown(() => preflightK3d([[stack, onTaken]]));
  },
  /the container k3d-k3d-ha-server-0 of the stack "k3d-ha" in \/checkout uses it/,
);

const byHand: World = {
  containers: [
    {
      ...node("k3d-k3d-server-0", "server"),
      labels: { app: "k3d", "k3d.cluster": "k3d", "k3d.role": "server" },
    },
  ],
  networks: [{ name: "k3d-k3d", labels: { app: "k3d" } }],
  volumes: [{ name: "k3d-k3d-images", labels: { app: "k3d", "k3d.cluster": "k3d" } }],
};

const there = { "k3s-lab.checkout": "/there" };
for (const [what, world] of [
  ["a user's own cluster with the name", byHand],
  ["a user's network with the name", { ...byHand, containers: [], volumes: [] }],
  ["a user's volume with the name", { ...byHand, containers: [], networks: [] }],
  [
    "another lab's cluster with the name",
    whole({
      "k3d-k3d-server-0": {
        labels: { ...mine, ...there, "k3s-lab.id": "other", "k3d.role": "server", "k3d.cluster": "k3d" },
      },
    }),
  ],
  [
    "another stack's cluster with the name",
    whole({
      "k3d-k3d-server-0": {
        labels: {
          ...mine,
          ...there,
          "k3s-lab.stack": "k3d-other",
          "k3d.role": "server",
          "k3d.cluster": "k3d",
        },
      },
    }),
  ],
] as const) {
  const strangers = { ...world, containers: world.containers.slice(0, 1) };
  refused(
    `${what} is refused before anything is made`,
    async () => {
      await fake.set(strangers);
      return await thrown(() => preflightK3d([[stack, file]]));
    },
    what.startsWith("another")
      ? /created by the stack "k3d(-other)?" in \/there \(container k3d-k3d.*scripts\/lab down k3d(-other)?$/
      : /A cluster k3d already exists, created by somebody else \((container|network|volume) k3d-k3d/,
  );
  fault(`${what} survives create, delete and remove-leftovers`, async () => {
    const foreign = what.startsWith("another") ? { ...strangers, networks: [], volumes: [] } : strangers;
    await fake.set(foreign);
    assert.match(
      (await thrown(() => actions.create(cluster, input(file))))?.message ?? "",
      /A cluster k3d already exists, created by /,
    );
    await fake.within(() => actions.removeCluster(owner));
    await fake.within(() => actions.removeAll(owner));
    assert.deepEqual(await fake.changes(), []);
    return { happened: "left alone", lost: await lost(foreign) };
  });
}

/** Runs `stacks/k3d/k3d.sh` as Pulumi does. */
const script = (action: string, stdin: object = {}) =>
  fake.within(() =>
    execa(join(root, "stacks/k3d/k3d.sh"), [action], {
      env: {
        ...{ K3S_LAB_ROOT: root, LAB_ID: owner.id, LAB_STACK: stack, K3D_CLUSTER: "k3d" },
        // `lab env` puts the lab's own Node.js first too.
        PATH: [fake.bin, dirname(process.execPath), process.env.PATH].join(delimiter),
      },
      input: JSON.stringify(stdin),
      reject: false,
      all: true,
    }),
  );

fault("everything created has both labels and is found by them: container, network, volume", async () => {
  const made = await script("create", { ...input(three, "g1"), labels: { "k3s-lab.servers": "3" } });
  assert.equal(made.exitCode, 0, made.all);
  const { containers, networks, volumes } = await fake.world();
  assert.deepEqual([containers.length, networks.length, volumes.length], [3, 1, 1]);
  for (const { name, labels } of [...containers, ...networks, ...volumes])
    assert.deepEqual([labels["k3s-lab.id"], labels["k3s-lab.stack"]], [owner.id, stack], name);
  assert.deepEqual((await observe()).cluster, { generation: "g1", boot: "g1" }, "an up without a change");
  assert.equal((await script("cluster-id")).stdout, "uid-1");
  const agent = await script("add-agent", agentInput());
  assert.equal(agent.exitCode, 0, agent.all);
  const gone = await script("remove-leftovers");
  assert.equal(gone.exitCode, 0, gone.all);
  const after = await fake.world();
  assert.deepEqual([after.containers, after.networks, after.volumes], [[], [], []]);
  return { happened: "created, found and removed by its labels", lost: "nothing" };
});

fault("an unknown action and a missing stack are distinguished from work", async () => {
  const unknown = await script("creat");
  assert.equal(unknown.exitCode, 2, unknown.all);
  assert.match(unknown.all, /unknown action 'creat'/);
  return { happened: "exit 2", lost: "nothing" };
});

fault("the state was lost: a complete cluster is adopted, not deleted", async () => {
  await fake.set(whole());
  await fake.within(() => actions.create(cluster, input(three)));
  assert.deepEqual(await fake.changes(), []);
  return { happened: "adopted unchanged", lost: await lost(whole()) };
});

fault(
  "the state was lost: a complete agent is adopted with its data, an incomplete one is recreated",
  async () => {
    const before = whole({
      "k3d-k3d-agent-0-0": { labels: { ...node("x0", "agent").labels, "k3s-lab.identity": "i1" } },
    });
    await fake.set(before);
    await fake.within(() => agents.addAgent(cluster, agentInput()));
    assert.deepEqual(await fake.changes(), []);
    await fake.set(whole({ "k3d-k3d-agent-0-0": { made: false } }));
    await fake.within(() => agents.addAgent(cluster, agentInput()));
    assert.match(
      (await fake.changes()).join("\n"),
      /^rm .*agent-0-0\n[\s\S]*create --name k3d-k3d-agent-0-0/,
    );
    await fake.set({ ...(await fake.world()) });
    await fake.within(() => agents.addAgent(cluster, agentInput()));
    assert.deepEqual(await fake.changes(), [], "the one that was made is whole");
    return { happened: "adopted unchanged", lost: await lost(before) };
  },
);

fault(
  "the state was lost and the config file has changed: the cluster is neither deleted nor adopted",
  async () => {
    await fake.set(whole());
    const labels = { "k3s-lab.identity": "another" };
    const errors = [
      await thrown(() => actions.create(cluster, { ...input(three), labels })),
      await thrown(() => agents.addAgent(cluster, agentInput())),
    ];
    for (const error of errors)
      assert.match(error?.message ?? "", /created from a different k3d config file.*Nothing was changed/);
    assert.deepEqual(await fake.changes(), []);
    return { happened: "exit 1 with the next step", lost: await lost(whole()) };
  },
);

fault("a registry with a user's folder keeps its images when its container is recreated", async () => {
  const volumes = ["/srv/config.yml:/etc/docker/registry/config.yml"];
  await fake.set(whole());
  await fake.within(() => makeRegistry(cluster, registryInput(...volumes)));
  await fake.within(() => makeRegistry(cluster, registryInput("/srv/data:/var/lib/registry")));
  const [first = "", second = ""] = await created();
  assert.match(first, /--volume \/srv\/config\.yml:\S+ --volume k3d-k3d-registry:\/var\/lib\/registry r:1$/);
  assert.match(second, /--volume \/srv\/data:\/var\/lib\/registry r:1$/);
  await fake.within(() => actions.removeCluster(owner));
  await fake.set({ volumes: (await fake.world()).volumes });
  const lives = await fake.within(() => existsInDocker(stack, { role: "registry" }));
  assert.equal(lives, true, "its images live without a container");
  return {
    happened: "a named volume",
    lost: await lost({
      ...whole(),
      containers: [],
      networks: [],
      volumes: [{ name: "k3d-k3d-registry", labels: mine }],
    }),
  };
});

fault("another lab's volume has the registry's name: it is not used", async () => {
  const theirs = { ...mine, "k3s-lab.id": "other" };
  const before: World = { ...whole(), volumes: [{ name: "k3d-k3d-registry", labels: theirs }] };
  await fake.set(before);
  const error = await thrown(() => makeRegistry(cluster, registryInput()));
  assert.equal(error?.exitCode, 2);
  assert.match(
    error?.message ?? "",
    /volume k3d-k3d-registry already exists and does not belong to this stack/,
  );
  assert.doesNotMatch((await fake.changes()).join("\n"), /^(rm|create) /m);
  return { happened: "exit 2", lost: await lost(before) };
});

fault("Docker does not say whether the network exists: a registry is not left outside it", async () => {
  await fake.set({
    ...whole(),
    breaks: { on: "network inspect", says: "Error response from daemon: deadline" },
  });
  const error = await thrown(() => makeRegistry(cluster, registryInput()));
  assert.match(error?.message ?? "", /docker network inspect k3d-k3d.*deadline/);
  return { happened: "exit 1 with Docker's message", lost: await lost(whole()) };
});

fault(
  "k3d's state in Pulumi shows no variable's value, and another registries.yaml makes another cluster",
  async () => {
    const registries = join(folder, "registries.yaml");
    const identities: string[] = [];
    for (const text of ["a: secret-1", "a: secret-2"]) {
      await writeFile(registries, text);
      const env = [{ envVar: "PROXY=http://u:hidden@p", nodeFilters: ["server:*"] }];
      identities.push(await clusterIdentity({ ...file, env, registries: { config: registries } }));
    }
    assert.notEqual(identities[0], identities[1]);
    assert.doesNotMatch(identities.join(), /hidden|secret-/);
    return { happened: "only hashes are stored", lost: "nothing" };
  },
);

fault("what an interrupted run left of a cluster is removed before the next; it never served", async () => {
  await fake.set({
    ...whole(Object.fromEntries(serversOf(three).map((name) => [name, { made: false }]))),
    k3d: {
      exitCode: 1,
      says: "\u001b[31mFATA\u001b[0m[0003] Cluster creation FAILED, all changes have been rolled back!",
    },
  });
  assert.equal((await observe()).cluster.generation, "now");
  const error = await thrown(() => actions.create(cluster, input(three)));
  assert.match(error?.message ?? "", /k3d could not create the cluster k3d: Cluster creation FAILED/);
  const { containers, networks, volumes } = await fake.world();
  assert.deepEqual([containers, networks, volumes], [[], [], []], "nothing half is left");
  return { happened: "exit 1 with k3d's message; nothing is left half-created", lost: "nothing" };
});

fault("k3d and the config file are missing: a recorded deletion needs only Docker", async () => {
  await fake.set(whole());
  await fake.within(() => actions.removeCluster(owner));
  const { containers, networks, volumes } = await fake.world();
  assert.deepEqual([containers, networks, volumes], [[], [], []]);
  return { happened: "removed by its labels", lost: "nothing" };
});

fault("the registry and its images survive the replacement of its cluster", async () => {
  const registry = node("r.localhost", "registry", {
    labels: { ...mine, "k3d.role": "registry", "k3s-lab.boot": "b1" },
  });
  const world = whole();
  await fake.set({
    ...world,
    containers: [...world.containers, registry],
    volumes: [...world.volumes, { name: "k3d-k3d-registry", labels: mine }],
  });
  await fake.within(() => actions.removeCluster(owner));
  const { containers, volumes } = await fake.world();
  assert.deepEqual(
    [containers.map(({ name }) => name), volumes.map(({ name }) => name)],
    [["r.localhost"], ["k3d-k3d-registry"]],
  );
  return { happened: "container and volume stay", lost: "nothing" };
});

// What the config file may say.

const base = {
  ...{ apiVersion: "k3d.io/v1alpha5", kind: "Simple", metadata: { name: "k3d" }, servers: 3, agents: 1 },
  image: "rancher/k3s:v1.25.4-k3s1",
  kubeAPI: { hostIP: "127.0.0.1", hostPort: "6550" },
};
const port = (text: string, ...nodeFilters: string[]) => ({
  ports: [{ port: text, ...(nodeFilters.length ? { nodeFilters } : {}) }],
});
/** Each of these has a value and the one filter of the nodes that get it. */
type Filtered = readonly [value: string, filter: string];
const list = (key: string, all: readonly Filtered[]) =>
  all.map(([value, filter]) => ({ [key]: value, nodeFilters: [filter] }));
const env = (...all: Filtered[]) => ({ env: list("envVar", all) });
const volume = (...all: Filtered[]) => ({ volumes: list("volume", all) });
const arg = (...all: Filtered[]) => ({ options: { k3s: { extraArgs: list("arg", all) } } });
const label = (...all: Filtered[]) => ({ options: { k3s: { nodeLabels: list("label", all) } } });
const copied = (source: string, destination: string) => ({
  files: [{ source, destination, nodeFilters: ["all"] }],
});
const registry = (name: string, hostPort?: string) => ({
  registries: { create: { name, host: "127.0.0.1", ...(hostPort ? { hostPort } : {}) } },
});
const alias = (ip: string, host: string) => ({ hostAliases: [{ ip, hostnames: [host] }] });
const k3d = (more: object) => ({ options: { k3d: more } });
const runtime = (more: object) => ({ options: { runtime: more } });
const badInputs: readonly (readonly [string, object, RegExp])[] = [
  ["port 80811", port("127.0.0.1:80811:80"), /ports\[0\]\.port: "127\.0\.0\.1:80811:80" .*from 1 to 65535/],
  ["port 0", port("127.0.0.1:0:80"), /ports\[0\]\.port: .*from 1 to 65535/],
  ["port 0 of a node", port("127.0.0.1:8081:0"), /ports\[0\]\.port: .*from 1 to 65535/],
  ["port 0 of the API", { kubeAPI: { hostIP: "127.0.0.1", hostPort: "0" } }, /kubeAPI\.hostPort: "0"/],
  ["an invalid address", port("127.0.0.999:8081:80"), /ports\[0\]\.port/],
  [
    "the same port twice",
    { ports: [{ port: "127.0.0.1:8081:80" }, { port: "127.0.0.1:8081:443" }] },
    /ports\[1\]\.port: "127\.0\.0\.1:8081:443" .*ports\[0\]\.port has 127\.0\.0\.1:8081\./,
  ],
  [
    "the API's port twice",
    port("127.0.0.1:6550:80"),
    /ports\[0\]\.port: "127\.0\.0\.1:6550:80" .*kubeAPI\.hostPort has/,
  ],
  ["the registry's port twice", registry("r", "6550"), /registries\.create\.hostPort: "6550" .*kubeAPI/],
  [
    "a port of an agent",
    port("127.0.0.1:8081:80", "agent:0"),
    /ports\[0\]\.nodeFilters\[0\]: "agent:0" .*loadbalancer/,
  ],
  ["a port of all nodes", port("127.0.0.1:8081:80", "all"), /nodeFilters\[0\]: "all"/],
  [
    "a direct port of several nodes",
    port("127.0.0.1:8081:80", "server:*:direct"),
    /one server for a direct port/,
  ],
  ["a port of a server that does not exist", port("127.0.0.1:8081:80", "server:3"), /0 to 2/],
  ["a user's network", { network: "my-net" }, /^k3d\.yaml: network: "my-net" .*no value/],
  ["the host's network", { network: "host" }, /network: "host" .*no value/],
  ["a subnet with host bits", { subnet: "172.28.0.5/16" }, /subnet: "172\.28\.0\.5\/16" .*no host bits/],
  ["K3s's own subnet", { subnet: "10.42.0.0/16" }, /subnet: "10\.42\.0\.0\/16"/],
  ["a filter without numbers", env(["A=1", "server"]), /env\[0\]\.nodeFilters\[0\]: "server" .*server:\*/],
  ["no filter", { env: [{ envVar: "A=1" }] }, /env\[0\]\.nodeFilters: is missing/],
  ["a filter for an agent that does not exist", arg(["--v=1", "agent:5"]), /"agent:5" .*numbers of agents/],
  ["an invalid filter", volume(["/tmp:/x", "nodes"]), /volumes\[0\]\.nodeFilters\[0\]/],
  ["a relative folder", volume(["./x:/x", "all"]), /volumes\[0\]\.volume: "\.\/x:\/x"/],
  ["a file that does not exist", copied("gone.yaml", "/a"), /files\[0\]\.source: "gone\.yaml" .*a file/],
  ["an invalid destination", copied("here.yaml", "a/b"), /files\[0\]\.destination: "a\/b" .*k3s-manifests/],
  ["a variable that k3d sets", env(["K3S_TOKEN=x", "all"]), /env\[0\]\.envVar/],
  ["a variable with a line break", env(["A=1\nB=2", "all"]), /env\[0\]\.envVar: .*on one line/],
  ["a variable without a value", env(["A", "all"]), /env\[0\]\.envVar: "A"/],
  ["a value from the shell", env(["A=$HOME", "all"]), /env\[0\]\.envVar: "A=…" .*without \$NAME/],
  ["another data folder of K3s", arg(["--data-dir=/x", "server:*"]), /extraArgs\[0\]\.arg: "--data-dir=\/x"/],
  ["another port of K3s", arg(["--https-listen-port=7443", "server:*"]), /--https-listen-port/],
  ["--cluster-reset", arg(["--cluster-reset", "server:*"]), /--cluster-reset/],
  ["--cluster-init", arg(["--cluster-init", "server:*"]), /--cluster-init/],
  ["a token as a flag", arg(["--agent-token=x", "all"]), /--agent-token/],
  ["no flannel", arg(["--flannel-backend=none", "server:*"]), /--flannel-backend=none/],
  ["no ServiceLB", arg(["--disable=traefik,servicelb", "server:*"]), /servicelb/],
  [
    "a label that a node may not have",
    label(["node-role.kubernetes.io/x=y", "all"]),
    /nodeLabels\[0\]\.label/,
  ],
  [
    "a label with the lab's own prefix",
    runtime({ labels: [{ label: "k3s-lab.id=x", nodeFilters: ["all"] }] }),
    /runtime\.labels\[0\]\.label/,
  ],
  ["memory of servers", runtime({ serversMemory: "1g" }), /options\.runtime\.serversMemory: "1g" .*no value/],
  [
    "an unknown limit",
    runtime({ ulimits: [{ name: "files", soft: 1, hard: 1 }] }),
    /ulimits\[0\]\.name: "files"/,
  ],
  [
    "the user's kubeconfig",
    { options: { kubeconfig: { updateDefaultKubeconfig: true } } },
    /updateDefaultKubeconfig: true .*one of: false/,
  ],
  ["no image volume", k3d({ disableImageVolume: true }), /disableImageVolume: true/],
  ["a duration without a unit", k3d({ timeout: "180" }), /options\.k3d\.timeout: "180" .*180s/],
  [
    "an unknown key in options",
    k3d({ waits: true }),
    /options\.k3d\.waits: unknown key; did you mean "wait"/,
  ],
  ["a registry without its port", registry("r"), /registries\.create\.hostPort: is missing/],
  ["a short token", { token: "hunter2" }, /token: "…" .*at least 8 letters/],
  ["an alias without an address", alias("x", "a"), /hostAliases\[0\]\.ip: "x" .*an IP address/],
  ["an image without a tag", { image: "localhost:5000/k3s" }, /image: "localhost:5000\/k3s"/],
  ...words(`
    rancher/k3s:v1.19.4-k3s1 rancher/k3s:v0.0.0-k3s0 rancher//k3s:v1.25.4-k3s1 a/../b:v1.25.4-k3s1
    -r/k3s:v1.25.4-k3s1 r:99999/k3s:v1.25.4-k3s1
  `).map((image) => [`the image ${image}`, { image }, /image: .*v1\.25 or later/] as const),
  ...(
    [
      ["--with-node-id", /no --with-node-id: the lab knows nodes by their names/],
      ["--disable-scheduler", /no --disable-scheduler/],
      ["--disable-kube-proxy", /no --disable-kube-proxy/],
      ["--log=/x", /no --log: k3d reads K3s's log/],
      ["--no-deploy=traefik", /K3s no longer has it/],
      ["--cluster-reset-restore-path=/x", /no --cluster-reset-restore-path/],
      ["--node-ip=1.2.3.4", /no --node-ip: k3d or the lab sets it/],
      ["--flannel-iface=eth9", /--flannel-iface with eth0/],
      ["--docker", /no --docker/],
      ["--advertise-address=1.2.3.4", /no --advertise-address/],
      ["--protect-kernel-defaults", /kubelet does not start with it/],
      ["--kubelet-arg=max-podz=1", /did you mean max-pods\?/],
      ["--etcd-arg=data-dir=/x", /other than data-dir/],
      ["--cluster-cidr=10.43.0.0/16", /does not overlap/],
      ["--cluster-cidr=10.42.0.5/16", /without host bits/],
      ["--cluster-cidr=010.42.0.0/16", /one IPv4 network/],
      ["--cluster-dns=10.43.0.1", /other than its first two/],
      ["--disable-helm-controller", /--disable=traefik as well/],
      ["--node-external-ip=1.2.3.4", /one node for an address/],
      ["--service-node-port-range=6000-7000", /the node itself listens on 6443/],
    ] as const
  ).map(([flag, sentence]) => [`the flag ${flag}`, arg([flag, "server:*"]), sentence] as const),
  ...words(
    "--cluster-cidr=10.99.0.0/16 --disable=traefik --secrets-encryption --flannel-backend=host-gw",
  ).map(
    (flag) =>
      [`${flag} on one of three servers`, arg([flag, "server:0"]), /the same on every server/] as const,
  ),
  ["a taint on every node", arg(["--node-taint=a=b:NoSchedule", "all"]), /a node without a taint/],
  [
    "one flag with two values for a node",
    arg(["--resolv-conf=/a", "server:*"], ["--resolv-conf=/b", "server:0"]),
    /extraArgs\[1\]\.arg: .*--resolv-conf only once/,
  ],
  [
    "one label with two values for a node",
    label(["a=1", "all"], ["a=2", "agent:0"]),
    /nodeLabels\[1\]\.label: .*only once for a/,
  ],
  [
    "pods in the nodes' network",
    { subnet: "10.99.0.0/16", ...arg(["--cluster-cidr=10.99.0.0/16", "server:*"]) },
    /subnet: .*does not overlap 10\.99\.0\.0\/16/,
  ],
  ...["8.8.0.0/16", "127.0.0.0/16", "224.0.0.0/16", "169.254.0.0/16"].map(
    (subnet) => [`the subnet ${subnet}`, { subnet }, /subnet: .*private/] as const,
  ),
  ...words("K3S_DATASTORE_ENDPOINT K3S_AGENT_TOKEN K3S_CLUSTER_INIT K3S_CONFIG_FILE K3S_LB_SERVER_PORT").map(
    (name) =>
      [
        `the variable ${name}`,
        env([`${name}=hunter2`, "all"]),
        new RegExp(`"${name}=…" .*flags in options\\.k3s\\.extraArgs`),
      ] as const,
  ),
  ["another PATH", env(["PATH=/x", "all"]), /another variable/],
  [
    "the same variable twice",
    env(["A=1", "all"], ["A=2", "server:0"]),
    /env\[1\]\.envVar: "A=…" .*only once per node: server:0/,
  ],
  ...[
    ...words("/a:/ /a:/b:foo /a:/b:ro,rw /a:b /a:/var/lib/rancher/k3s /a:/b/../etc /a:k3s-foo"),
    "/a\nb:/c",
  ].map(
    (text) =>
      [`the volume ${JSON.stringify(text)}`, volume([text, "all"]), /volumes\[0\]\.volume: /] as const,
  ),
  [
    "two volumes at one path",
    volume(["/a:/x", "all"], ["/b:/x/", "server:0"]),
    /volumes\[1\]\.volume: .*only once per node/,
  ],
  ...["/", "/a/", "/a/../b", "/a\nb"].map(
    (path) =>
      [
        `the destination ${JSON.stringify(path)}`,
        copied("here.yaml", path),
        /files\[0\]\.destination: .*absolute path of a file/,
      ] as const,
  ),
  ["a source with NUL", copied("a\0", "/a"), /files\[0\]\.source: .*a file that you can read/],
  [
    "a soft limit above the hard one",
    runtime({ ulimits: [{ name: "nofile", soft: 2, hard: 1 }] }),
    /no higher than hard/,
  ],
  ["two GPUs in words", runtime({ gpuRequest: "two" }), /gpuRequest: "two" .*a number of GPUs/],
  ["a timeout of zero", k3d({ timeout: "0s" }), /above zero/],
  [
    "an override that k3d does not have",
    { options: { k3d: { loadbalancer: { configOverrides: ["settings.workers=2"] } } } },
    /settings\.workerConnections=NUMBER/,
  ],
  [
    "a registry with a node's name",
    registry("k3d-k3d-server-0", "5050"),
    /a node of the cluster has this one/,
  ],
  [
    "half a login",
    {
      registries: {
        create: {
          ...{ name: "r", host: "127.0.0.1", hostPort: "5050" },
          proxy: { remoteURL: "https://x", password: "hunter2" },
        },
      },
    },
    /proxy: \{"remoteURL":"https:\/\/x","password":"…"\} .*both username and password/,
  ],
  ["an invalid port of a used registry", { registries: { use: ["a:99999"] } }, /use\[0\]: "a:99999"/],
  [
    "an invalid registries.yaml",
    { registries: { config: "mirors:\n  x: {password: hunter2}\n" } },
    /config: "…" .*a YAML mapping with mirrors, configs, auths/,
  ],
  ["an alias with a zone", alias("fe80::1%eth0", "a"), /without zone/],
  ["an alias with an empty label", alias("1.2.3.4", "a..b"), /a host name/],
];
for (const [what, changes, sentence] of badInputs)
  refused(
    `k3d config: ${what}`,
    async () => {
      await writeFile(join(folder, "k3d.yaml"), stringify({ ...base, ...changes }));
      return await thrown(() => readK3dFile("k3d.yaml", folder));
    },
    sentence,
  );
