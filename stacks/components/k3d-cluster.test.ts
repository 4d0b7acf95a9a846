import assert from "node:assert/strict";
import { test } from "node:test";
import { parse } from "yaml";
import { root } from "../../scripts/paths.ts";
import { readK3dFile } from "../k3d-file.ts";
import { mockEngine, resourcesOf } from "./mocks.ts";

await mockEngine();
const { K3dCluster } = await import("./k3d-cluster.ts");
const { K3dAgent } = await import("./k3d-agent.ts");

const file = await readK3dFile("stacks/k3d.yaml", root);
const images = { node: "built:1", loadBalancer: false };
const observed = { generation: "g1", boot: "b1" };

const clusterCommand = async (changed: object = {}, seen: object = {}) => {
  const [command] = await resourcesOf(
    () =>
      new K3dCluster("k3d", { file: { ...file, ...changed }, images, observed: { ...observed, ...seen } }),
  );
  return command?.inputs ?? {};
};

test("the script gets k3d's own config on standard input, with the image that is here", async () => {
  const { create, update, delete: destroy, environment, stdin } = await clusterCommand({ servers: 3 });
  assert.deepEqual(
    [create, update, destroy],
    ["create", "start", "delete"].map((action) => `"$K3S_LAB_ROOT/stacks/k3d/k3d.sh" ${action}`),
  );
  assert.deepEqual(environment, {
    LAB_STACK: "cluster",
    K3D_CLUSTER: "k3d",
    K3D_IMAGE: "built:1",
    NODE_NAME: "k3d-k3d-server-0",
    SERVERS: "k3d-k3d-server-0 k3d-k3d-server-1 k3d-k3d-server-2",
    LAB_GENERATION: "g1",
    LAB_BOOT: "b1",
  });
  const config = parse(String(stdin)) as { image: string; servers: number };
  assert.deepEqual([config.image, config.servers], ["built:1", 3]);
});

test("agents do not replace the cluster, a restart neither; anything else that k3d reads does", async () => {
  const before = await clusterCommand();
  const triggers = async (changed: object, seen: object = {}) =>
    (await clusterCommand(changed, seen)).triggers;
  assert.deepEqual(await triggers({ agents: 5 }), before.triggers);
  assert.deepEqual(await triggers({}, { boot: "b2" }), before.triggers);
  assert.notDeepEqual(await triggers({ servers: 3 }), before.triggers);
  assert.notDeepEqual(await triggers({ ports: [] }), before.triggers);
  assert.notDeepEqual(await triggers({}, { generation: "g2" }), before.triggers);
});

test("an agent is made anew with its cluster, or when it is gone; it need not be deleted when the cluster is", async () => {
  const agentCommand = async (clusterGeneration: string, agentGeneration: string) => {
    const [, command] = await resourcesOf(() => {
      const cluster = new K3dCluster("k3d", {
        file,
        images,
        observed: { ...observed, generation: clusterGeneration },
      });
      new K3dAgent("k3d-k3d-agent-0-0", {
        node: { name: "k3d-k3d-agent-0-0", argument: "k3d-agent-0" },
        cluster,
        clusterName: "k3d",
        observed: { ...observed, generation: agentGeneration },
      });
    });
    return command?.inputs ?? {};
  };
  const command = await agentCommand("g1", "a1");
  assert.deepEqual(command.triggers, ["g1", "a1"]);
  assert.deepEqual(command.environment, {
    LAB_STACK: "cluster",
    K3D_CLUSTER: "k3d",
    NODE_NAME: "k3d-k3d-agent-0-0",
    NODE_ARGUMENT: "k3d-agent-0",
    LAB_GENERATION: "a1",
    LAB_BOOT: "b1",
  });
});
