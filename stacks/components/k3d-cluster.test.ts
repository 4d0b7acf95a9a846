import assert from "node:assert/strict";
import { test } from "node:test";
import type { AgentInput, RegistryInput, ServersInput } from "../k3d/cluster.ts";
import { root } from "../lib/paths.ts";
import { type K3dFile, readK3dFile } from "../model/k3d-file.ts";
import type { NodeObservation } from "../observe/k3d-host.ts";
import { mockEngine, resourcesOf } from "./fake-engine.ts";

await mockEngine();
const { K3dCluster } = await import("./k3d-cluster.ts");
const { K3dAgent } = await import("./k3d-agent.ts");
const { K3dRegistry } = await import("./k3d-registry.ts");

const file = await readK3dFile("stacks/k3d.yaml", root);
const images = { node: "built:1", loadBalancer: false };
const owner = { id: "lab-1", stack: "cluster" };
const seen: NodeObservation = { generation: "g1", boot: "b1" };

/** What a secret of Pulumi's holds. */
const unwrapped = <Input>(secret: unknown): Input =>
  JSON.parse(String((secret as { readonly value?: unknown }).value)) as Input;

const clusterOf = (changed: Partial<K3dFile>, identity = "same", observed: NodeObservation = seen) =>
  new K3dCluster("cluster", {
    file: { ...file, ...changed },
    images,
    identity,
    observed: { owner, cluster: observed },
  });

const clusterCommand = async (...args: Parameters<typeof clusterOf>) => {
  const [command] = await resourcesOf(() => clusterOf(...args));
  return command?.inputs ?? {};
};

test("passes the cluster's owner and, on stdin, k3d's configuration with the local image", async () => {
  const { create, update, delete: destroy, environment, stdin } = await clusterCommand({ servers: 3 });
  assert.deepEqual(
    [create, update, destroy],
    ["create", "start", "delete"].map((action) => `"$K3S_LAB_ROOT/stacks/k3d/k3d.sh" ${action}`),
  );
  assert.deepEqual(environment, { LAB_ID: "lab-1", LAB_STACK: "cluster", K3D_CLUSTER: "k3d" });
  const input = unwrapped<ServersInput>(stdin);
  assert.deepEqual([input.config.image, input.config.servers, input.image], ["built:1", 3, "built:1"]);
  assert.deepEqual(
    input.servers.map(({ name, ports }) => [name, ports.length]),
    [
      ["k3d-k3d-server-0", 3],
      ["k3d-k3d-server-1", 0],
      ["k3d-k3d-server-2", 0],
    ],
  );
  assert.deepEqual([input.generation, input.boot, input.subnet], ["g1", "b1", "auto"]);
  assert.deepEqual(input.labels, {
    ...{ "k3s-lab.image": file.image, "k3s-lab.servers": "3", "k3s-lab.identity": "same" },
  });
});

test("another identity or a missing cluster replaces it; a start does not", async () => {
  const triggers = async (...args: Parameters<typeof clusterOf>) => (await clusterCommand(...args)).triggers;
  const before = await triggers({});
  assert.deepEqual(before, ["same", "g1"]);
  assert.deepEqual(await triggers({ agents: 5 }), before);
  assert.deepEqual(await triggers({}, "same", { ...seen, boot: "b2" }), before);
  assert.notDeepEqual(await triggers({}, "other"), before);
  assert.notDeepEqual(await triggers({}, "same", { ...seen, generation: "g2" }), before);
});

test("reads the cluster's own id, again after a replacement", async () => {
  const [, id] = await resourcesOf(() => clusterOf({}));
  assert.equal(id?.inputs.create, '"$K3S_LAB_ROOT/stacks/k3d/k3d.sh" cluster-id');
  assert.deepEqual(id?.inputs.triggers, ["g1"]);
});

test("node settings such as tokens, variables and files are secrets in Pulumi", async () => {
  const envVar = "HTTP_PROXY=http://user:very-secret@proxy";
  const { stdin, ...others } = await clusterCommand({ env: [{ envVar, nodeFilters: ["server:*"] }] });
  assert.match(JSON.stringify(unwrapped(stdin)), /very-secret/);
  assert.doesNotMatch(JSON.stringify(others), /very-secret/);
});

test("an agent is recreated with its cluster, when it is missing, or when its settings change", async () => {
  const made = await resourcesOf(() => {
    new K3dAgent("k3d-k3d-agent-0-0", {
      file,
      node: { name: "k3d-k3d-agent-0-0", index: 0 },
      cluster: clusterOf({}),
      identity: "agent",
      observed: { generation: "a1", boot: "b1" },
    });
  });
  const inputs = made.find(({ name }) => name === "k3d-k3d-agent-0-0")?.inputs ?? {};
  assert.deepEqual(inputs.triggers, ["g1", "a1", "agent"]);
  assert.deepEqual(inputs.environment, {
    ...{ LAB_ID: "lab-1", LAB_STACK: "cluster", K3D_CLUSTER: "k3d" },
    NODE_NAME: "k3d-k3d-agent-0-0",
  });
  const input = unwrapped<AgentInput>(inputs.stdin);
  assert.deepEqual(
    [input.name, input.index, input.generation, input.boot],
    ["k3d-k3d-agent-0-0", 0, "a1", "b1"],
  );
});

test("a registry has no triggers: its images survive every change", async () => {
  const registry = { name: "r.localhost", host: "127.0.0.1", hostPort: "5050", volumes: [] };
  const [command] = await resourcesOf(
    () =>
      new K3dRegistry("registry", {
        ...{ file, registry, observed: { owner, registry: seen } },
        images: { loadBalancer: false, registry: "r:1" },
      }),
  );
  assert.equal(command?.inputs.triggers, undefined);
  assert.deepEqual(unwrapped<RegistryInput>(command?.inputs.stdin), {
    ...{
      name: "r.localhost",
      address: "127.0.0.1",
      port: "5050",
      volumes: [],
      image: "r:1",
      env: [],
      boot: "b1",
    },
  });
});
