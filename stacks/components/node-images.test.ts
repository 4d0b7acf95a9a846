import assert from "node:assert/strict";
import { test } from "node:test";
import type { ImageNode } from "../observe/images.ts";
import { mockEngine, resourcesOf } from "./fake-engine.ts";

await mockEngine();
const { NodeImages } = await import("./node-images.ts");

const node = (name: string, address: string): ImageNode => ({
  name,
  role: "server",
  address,
  loaded: "then",
});
const commands = (...nodes: ImageNode[]) =>
  resourcesOf(() => new NodeImages("web", { image: "web:1", nodes, prepared: Promise.resolve() }));

test("each node gets the image, and again after it was recreated", async () => {
  const made = await commands(node("server", "ssh://server.cluster"), node("k3d-a", "docker://k3d-a"));
  assert.deepEqual(
    made.map(({ inputs }) => inputs),
    [
      {
        create: '"$K3S_LAB_ROOT/stacks/lib/load-image.sh"',
        addPreviousOutputInEnv: false,
        environment: { NODE_ADDRESS: "ssh://server.cluster", IMAGE: "web:1", LOADED: "then" },
      },
      {
        create: '"$K3S_LAB_ROOT/stacks/lib/load-image.sh"',
        addPreviousOutputInEnv: false,
        environment: { NODE_ADDRESS: "docker://k3d-a", IMAGE: "web:1", LOADED: "then" },
      },
    ],
  );
});

test("nothing is loaded into nodes that may not exist yet", async () => {
  const order: string[] = [];
  const exist = Promise.withResolvers<void>();
  const prepared = exist.promise.then(() => {
    order.push("nodes");
  });
  setImmediate(exist.resolve);
  await resourcesOf(() => {
    const nodes = [node("server", "ssh://server.cluster")];
    new NodeImages("web", { image: "web:1", nodes, prepared }).image.apply(() => order.push("image"));
  });
  assert.deepEqual(order, ["nodes", "image"]);
});

test("a node with an unknown kind of address is an error that names it", async () => {
  await assert.rejects(commands(node("far", "telnet://far")), /the node far is reached by telnet:\/\/far/);
});
