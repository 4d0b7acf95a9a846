import assert from "node:assert/strict";
import { test } from "node:test";
import type { ImageNode } from "../observe/images.ts";
import { mockEngine, resourcesOf } from "./mocks.ts";

await mockEngine();
const { NodeImages } = await import("./node-images.ts");

const node = (name: string, address: string): ImageNode => ({
  name,
  role: "server",
  address,
  installation: "i1",
  loaded: "then",
});
const commands = (...nodes: ImageNode[]) =>
  resourcesOf(() => new NodeImages("web", { image: "web:1", nodes }));

test("a machine gets the image over ssh, a container through Docker; each again when it was recreated", async () => {
  const made = await commands(node("server", "ssh://server.cluster"), node("k3d-a", "docker://k3d-a"));
  assert.deepEqual(
    made.map(({ inputs }) => inputs),
    [
      {
        create: '"$K3S_LAB_ROOT/vagrant/k3s.sh" load',
        addPreviousOutputInEnv: false,
        environment: { NODE_NAME: "server", NODE_ADDRESS: "server.cluster", IMAGE: "web:1", LOADED: "then" },
        triggers: ["i1"],
      },
      {
        create: '"$K3S_LAB_ROOT/stacks/k3d/k3d.sh" load',
        addPreviousOutputInEnv: false,
        environment: { NODE_NAME: "k3d-a", NODE_ADDRESS: "k3d-a", IMAGE: "web:1", LOADED: "then" },
        triggers: ["i1"],
      },
    ],
  );
});

test("a node that is reached in another way is an error that names it", async () => {
  await assert.rejects(commands(node("far", "telnet://far")), /the node far is reached by telnet:\/\/far/);
});
