import assert from "node:assert/strict";
import { mkdtemp, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { stringify } from "yaml";
import { root } from "../lib/paths.ts";
import {
  agentsOf,
  hostPorts,
  k3sVersionOf,
  publishedPort,
  readK3dFile,
  serverArgsOf,
  serversOf,
} from "./k3d-file.ts";
import { balancerOf, clusterIdentity, createConfig, directPorts, nodeConfig } from "./k3d-nodes.ts";

const folder = await mkdtemp(join(tmpdir(), "k3d-file-"));
after(() => rm(folder, { recursive: true }));

const whole = {
  apiVersion: "k3d.io/v1alpha5",
  kind: "Simple",
  metadata: { name: "k3d" },
  servers: 3,
  agents: 2,
  image: "rancher/k3s:v1.25.4-k3s1",
  kubeAPI: { hostIP: "127.0.0.1", hostPort: "6550" },
  ports: [{ port: "127.0.0.1:8081:80", nodeFilters: ["loadbalancer"] }],
};

async function read(changes: object = {}) {
  await writeFile(join(folder, "k3d.yaml"), stringify({ ...whole, ...changes }));
  return readK3dFile("k3d.yaml", folder);
}

test("the project's own files are valid: one server by default, three in the other", async () => {
  const one = await readK3dFile("stacks/k3d.yaml", root);
  assert.deepEqual(
    [one.servers, one.agents, publishedPort(one, 80), publishedPort(one, 443)],
    [1, 0, 8081, 8444],
  );
  const three = await readK3dFile("stacks/k3d-ha.yaml", root);
  assert.equal(three.servers, 3);
  const numbers = hostPorts(three).map(({ port }) => port);
  const shared = hostPorts(one).filter(({ port }) => numbers.includes(port));
  assert.deepEqual(shared, [], "both clusters can be up at once");
});

const faults = [
  [
    "an even number of servers",
    { servers: 2 },
    /^k3d\.yaml: servers: 2 is not accepted; expected an odd number/,
  ],
  ["no server", { servers: 0 }, /servers: 0 is not accepted; expected at least one server/],
  ["a negative number of agents", { agents: -1 }, /agents: -1 is not accepted; expected at least 0/],
  ["another format version", { apiVersion: "k3d.io/v1alpha4" }, /apiVersion: .*one of: k3d\.io\/v1alpha5/],
  ["an unknown key", { agent: 1 }, /agent: unknown key; did you mean "agents"\?/],
  ["an image without K3s's version", { image: "rancher/k3s:latest" }, /image: "rancher\/k3s:latest"/],
  ["a port on every address", { ports: [{ port: "8081:80" }] }, /ports\[0\]\.port: "8081:80" .*loopback/],
  [
    "a port on another address",
    { ports: [{ port: "0.0.0.0:8081:80" }] },
    /ports\[0\]\.port: "0\.0\.0\.0:8081:80" is not accepted/,
  ],
  [
    "an API server on every address",
    { kubeAPI: { hostIP: "0.0.0.0", hostPort: "6550" } },
    /kubeAPI\.hostIP: "0\.0\.0\.0" is not accepted; expected a loopback address/,
  ],
  [
    "a registry on every address",
    { registries: { create: { name: "r", host: "0.0.0.0", hostPort: "5050" } } },
    /registries\.create\.host: "0\.0\.0\.0" is not accepted/,
  ],
] as const;
for (const [title, changes, message] of faults)
  test(`rejects ${title}`, async () => {
    await assert.rejects(read(changes), { exitCode: 2, message });
  });

test("an unreadable file is refused before anything changes", async () => {
  await symlink(join(folder, "loop"), join(folder, "loop"));
  const files = [{ source: "loop", destination: "/x", nodeFilters: ["server:*"] }];
  await assert.rejects(read({ files }), {
    exitCode: 2,
    message: /files\[0\]\.source: .*a file that you can read/,
  });
});

test("names a missing file and the alternative", async () => {
  await assert.rejects(
    readK3dFile("nowhere.yaml", folder),
    /^LabError: nowhere\.yaml cannot be read.*k3s-lab:config/s,
  );
});

test("nodes get k3d's names", async () => {
  const file = await read();
  assert.deepEqual(serversOf(file), ["k3d-k3d-server-0", "k3d-k3d-server-1", "k3d-k3d-server-2"]);
  assert.deepEqual(agentsOf(file), [
    { name: "k3d-k3d-agent-0-0", index: 0 },
    { name: "k3d-k3d-agent-1-0", index: 1 },
  ]);
});

test("reads the release from the image, without its digest", async () => {
  assert.equal(k3sVersionOf(await read()), "v1.25.4+k3s1");
  const digest = `@sha256:${"0".repeat(64)}`;
  for (const image of [`r.example/k3s:v1.30.2-k3s2${digest}`, "localhost:5000/mirror/k3s:v1.30.2-k3s2"])
    assert.equal(k3sVersionOf(await read({ image })), "v1.30.2+k3s2");
});

test("lists local ports: the API's, the nodes', the registry's", async () => {
  const registries = { create: { name: "r", host: "127.0.0.1", hostPort: "5050" } };
  const file = await read({
    registries,
    ports: [{ port: "127.0.0.1:8081:80" }, { port: "127.0.0.1:8444:443/tcp" }],
  });
  assert.deepEqual(
    hostPorts(file).map(({ port }) => port),
    [6550, 8081, 8444, 5050],
  );
  assert.deepEqual([publishedPort(file, 443), publishedPort(file, 22)], [8444, undefined]);
});

test("separates server flags from agent flags", async () => {
  const extraArgs = [
    { arg: "--disable=traefik", nodeFilters: ["server:*"] },
    { arg: "--node-label=a=b", nodeFilters: ["agent:*"] },
  ];
  assert.deepEqual(serverArgsOf(await read({ options: { k3s: { extraArgs } } })), ["--disable=traefik"]);
});

/** What of k3d's config is the same for every file here. */
const plain = {
  ...{ volumes: [], env: [], files: [], registries: {} },
  options: {
    k3d: {},
    k3s: { extraArgs: [], nodeLabels: [] },
    kubeconfig: { updateDefaultKubeconfig: false, switchCurrentContext: false },
    runtime: { labels: [], ulimits: [] },
  },
};

test("k3d gets the file without agents, and must not touch the user's kubeconfig", async () => {
  const { agents: _, ...rest } = whole;
  assert.deepEqual(createConfig(await read(), { loadBalancer: true }), { ...rest, ...plain });
});

test("the load balancer's settings come from the file; the last of duplicates wins", async () => {
  const settings = async (...configOverrides: string[]) => {
    const file = await read({ options: { k3d: { loadbalancer: { configOverrides } } } });
    return balancerOf(file, { loadBalancer: true })?.settings;
  };
  const [connections, timeout] = ["settings.workerConnections=2048", "settings.defaultProxyTimeout=900"];
  assert.deepEqual(await settings("settings.workerConnections=1", connections, timeout), {
    ...{ workerConnections: 2048, defaultProxyTimeout: 900 },
  });
  assert.equal(await settings(), undefined);
});

test("without a load balancer the first server answers; a built image replaces one that cannot be pulled", async () => {
  const registries = { create: { name: "r", host: "127.0.0.1", hostPort: "5050" } };
  const file = await read({ registries, subnet: "172.28.0.0/16", agents: 0 });
  const { agents: _, ...rest } = whole;
  assert.deepEqual(createConfig(file, { node: "built:1", registry: "registry:1", loadBalancer: false }), {
    ...{ ...rest, ...plain },
    image: "built:1",
    ports: [{ port: "127.0.0.1:8081:80", nodeFilters: ["server:0:direct"] }],
    options: { ...plain.options, k3d: { disableLoadbalancer: true } },
    registries: { use: ["r:5050"] },
  });
  assert.deepEqual(directPorts(file, 0, { loadBalancer: false }), [
    "127.0.0.1:6550:6443",
    "127.0.0.1:8081:80",
  ]);
  assert.deepEqual(directPorts(file, 1, { loadBalancer: false }), []);
});

test("server settings go to k3d, agent settings to the agents, and `all` to both", async () => {
  await writeFile(join(folder, "registries.txt"), "x");
  const file = await read({
    env: [
      { envVar: "A=1", nodeFilters: ["server:0", "agent:1"] },
      { envVar: "B=2", nodeFilters: ["all"] },
      { envVar: "C=3", nodeFilters: ["agents:*"] },
    ],
    volumes: [{ volume: "/tmp:/mnt:ro", nodeFilters: ["agent:0"] }],
    files: [{ source: "registries.txt", destination: "k3s-manifests/a.yaml", nodeFilters: ["server:1-2"] }],
    options: {
      k3s: {
        extraArgs: [{ arg: "--node-taint=a=b:NoSchedule", nodeFilters: ["agent:1"] }],
        nodeLabels: [{ label: "tier=front", nodeFilters: ["servers:0,2"] }],
      },
    },
  });
  const config = createConfig(file, { loadBalancer: true }) as Record<string, unknown>;
  assert.deepEqual(config.env, [
    { envVar: "A=1", nodeFilters: ["server:0"] },
    { envVar: "B=2", nodeFilters: ["server:0,1,2"] },
  ]);
  assert.deepEqual(config.volumes, []);
  assert.deepEqual(config.files, [
    {
      source: join(folder, "registries.txt").slice(1),
      destination: "/var/lib/rancher/k3s/server/manifests/a.yaml",
      nodeFilters: ["server:1,2"],
    },
  ]);
  const agent = (index: number) => nodeConfig(file, { role: "agent", index });
  assert.deepEqual(agent(0).env, ["B=2", "C=3"]);
  assert.deepEqual(agent(0).volumes, ["/tmp:/mnt:ro"]);
  assert.deepEqual(agent(1).env, ["A=1", "B=2", "C=3"]);
  assert.deepEqual(agent(1).args, ["--node-taint=a=b:NoSchedule"]);
  assert.deepEqual(nodeConfig(file, { role: "server", index: 2 }).nodeLabels, ["tier=front"]);
});

test("what k3d cannot change makes another cluster; agents, timeouts, order and notes do not", async () => {
  const identity = async (changes: object = {}) => clusterIdentity(await read(changes));
  const before = await identity();
  for (const same of [
    { agents: 5 },
    { options: { k3d: { wait: true, timeout: "5m", disableRollback: true } } },
    { options: { kubeconfig: { updateDefaultKubeconfig: false } } },
    { env: [{ envVar: "A=1", nodeFilters: ["agent:0"] }] },
    { hostAliases: [{ ip: "1.2.3.4", hostnames: ["a.b"] }] },
    { servers: 3 },
  ])
    assert.equal(await identity(same), before, JSON.stringify(same));
  for (const other of [
    { metadata: { name: "other" } },
    { servers: 1 },
    { image: "rancher/k3s:v1.26.0-k3s1" },
    { ports: [{ port: "127.0.0.1:8082:80" }] },
    { token: "one-of-its-own" },
    { env: [{ envVar: "A=1", nodeFilters: ["server:0"] }] },
    { options: { k3d: { disableLoadbalancer: true } } },
  ])
    assert.notEqual(await identity(other), before, JSON.stringify(other));
  assert.doesNotMatch(await identity({ token: "one-of-its-own" }), /one-of-its-own/);
});

test("changed content of a referenced file makes another cluster", async () => {
  const files = [{ source: "manifest.yaml", destination: "k3s-manifests/a.yaml", nodeFilters: ["server:*"] }];
  await writeFile(join(folder, "manifest.yaml"), "one: 1\n");
  const before = await clusterIdentity(await read({ files }));
  await writeFile(join(folder, "manifest.yaml"), "two: 2\n");
  assert.notEqual(await clusterIdentity(await read({ files })), before);
});
