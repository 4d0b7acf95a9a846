import assert from "node:assert/strict";
import { test } from "node:test";
import { agentAddress, freeAddress, gatewayOf } from "./addresses.ts";
import type { Container } from "./docker.ts";
import { balancerValues, createNode, type JoiningNode } from "./node.ts";

const server: Container = {
  ...{ id: "abc", name: "k3d-lab-server-1", status: "running", role: "server", ports: [], networks: [] },
  ...{ image: "rancher/k3s:v1.25.4-k3s1", imageId: "sha256:released", hostname: "k3d-lab-server-1" },
  env: ["K3S_TOKEN=very-secret", "K3S_URL=https://k3d-lab-server-0:6443", "OTHER=1"],
  entrypoint: "/bin/k3d-entrypoint.sh",
  labels: {
    ...{
      app: "k3d",
      "k3d.cluster": "lab",
      "k3d.cluster.imageVolume": "k3d-lab-images",
      "k3d.role": "server",
    },
    ...{ "k3d.node.staticIP": "172.28.0.3", "k3d.server.init": "true", "k3d.server.api.host": "127.0.0.1" },
    ...{ "k3d.server.loadbalancer": "k3d-lab-serverlb", "k3d.cluster.token": "very-secret" },
    ...{ "k3s-lab.id": "x", team: "blue" },
  },
};
const config: JoiningNode["config"] = {
  volumes: ["/srv:/srv:ro"],
  env: ["A=1 2"],
  files: [],
  args: ["--disable=traefik"],
  nodeLabels: ["tier=front"],
  labels: ["own=label"],
  ulimits: ["nofile=1024:2048"],
  gpus: undefined,
  hostPid: false,
};
const node = (role: JoiningNode["role"]): JoiningNode => ({
  ...{
    name: "k3d-lab-server-0",
    role,
    address: "172.28.0.2",
    config,
    server,
    ports: ["127.0.0.1:6550:6443"],
  },
  labels: { "k3s-lab.id": "id", "k3s-lab.stack": "k3d" },
});
test("creates a server as k3d does, with its ports and address, and joins a running one", () => {
  const { args, env, labels } = createNode(node("server"));
  const line = args.join(" ");
  assert.match(line, /^--privileged --userns host --init --tmpfs \/run --tmpfs \/var\/run /);
  assert.match(line, /--network k3d-lab --ip 172\.28\.0\.2 /);
  assert.match(line, /--volume \/srv:\/srv:ro --volume k3d-lab-images:\/k3d\/images/);
  assert.match(line, /--ulimit nofile=1024:2048 --publish 127\.0\.0\.1:6550:6443/);
  assert.match(
    line,
    /--entrypoint \/bin\/k3d-entrypoint\.sh rancher\/k3s:v1\.25\.4-k3s1 server --disable=traefik --node-label tier=front --tls-san 127\.0\.0\.1 --tls-san k3d-lab-serverlb$/,
  );
  assert.deepEqual(env, [
    "A=1 2",
    "K3S_TOKEN=very-secret",
    "K3S_URL=https://k3d-lab-server-1:6443",
    "K3S_KUBECONFIG_OUTPUT=/output/kubeconfig.yaml",
  ]);
  assert.deepEqual(
    labels.filter((label) => /^(k3d\.(role|node|server\.init)|team|own|k3s-lab)/.test(label)),
    [
      "own=label",
      "k3s-lab.id=id",
      "k3s-lab.stack=k3d",
      "k3d.role=server",
      "k3d.node.staticIP=172.28.0.2",
      "k3d.server.init=false",
    ],
  );
});

test("no secret is in the arguments, which any process can read", () => {
  for (const role of ["server", "agent"] as const)
    assert.doesNotMatch(createNode(node(role)).args.join(" "), /very-secret/);
});

test("an agent gets only its own flags", () => {
  const { args } = createNode(node("agent"));
  assert.deepEqual(args.slice(args.indexOf("agent")), [
    "agent",
    "--disable=traefik",
    "--node-label",
    "tier=front",
  ]);
});

test("addresses: the lowest free one for a server, the highest for an agent", () => {
  assert.equal(gatewayOf("172.28.0.0/16"), "172.28.0.1");
  assert.equal(freeAddress("172.28.0.0/16", ["172.28.0.1", "172.28.0.2", "172.28.0.4"]), "172.28.0.3");
  assert.equal(freeAddress("172.28.0.0/30", ["172.28.0.1", "172.28.0.2"]), undefined);
  assert.equal(agentAddress("172.28.0.0/16", 0), "172.28.255.254");
  assert.equal(agentAddress("192.168.0.0/28", 2), "192.168.0.12");
});

test("a recreated load balancer keeps the file's overrides", () => {
  const targets = { "6443.tcp": ["k3d-lab-server-0", "k3d-lab-server-1"] };
  const balancer = { name: "k3d-lab-serverlb", publish: ["127.0.0.1:6550:6443"], targets };
  assert.deepEqual(balancerValues(balancer), { ports: targets, settings: { workerConnections: 1026 } });
  assert.deepEqual(balancerValues({ ...balancer, settings: { defaultProxyTimeout: 900 } }).settings, {
    ...{ workerConnections: 1026, defaultProxyTimeout: 900 },
  });
  assert.deepEqual(balancerValues({ ...balancer, settings: { workerConnections: 4096 } }).settings, {
    workerConnections: 4096,
  });
});
