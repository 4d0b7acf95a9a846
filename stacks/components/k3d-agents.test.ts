import assert from "node:assert/strict";
import { test } from "node:test";
import { setTimeout } from "node:timers/promises";
import * as pulumi from "@pulumi/pulumi";
import pWaitFor from "p-wait-for";
import { root } from "../lib/paths.ts";
import { readK3dFile } from "../model/k3d-file.ts";

const events: string[] = [];
const together = [2, 3].map((index) => `k3d-k3d-agent-${index}-0`);
const allBegun = () => together.every((name) => events.includes(`${name} begins`));
await pulumi.runtime.setMocks(
  {
    newResource: async ({ name, inputs }) => {
      events.push(`${name} begins`);
      // Those that join together wait for each other; where they do not, the order tells.
      if (together.some((one) => one === name)) await pWaitFor(allBegun, { timeout: 30_000 }).catch(() => {});
      else await setTimeout(100);
      events.push(`${name} is done`);
      return { id: name, state: inputs };
    },
    call: ({ inputs }) => inputs,
  },
  "k3s-lab",
  "k3d",
);
const { K3dCluster } = await import("./k3d-cluster.ts");
const { joinAgents } = await import("./k3d-agents.ts");

test("existing agents change one at a time, since their pods must move; new ones join together", async () => {
  const file = { ...(await readK3dFile("stacks/k3d.yaml", root)), agents: 4 };
  const seen = { generation: "g1", boot: "b1" };
  const agents = new Map([0, 1].map((index) => [`k3d-k3d-agent-${index}-0`, seen]));
  for (const index of [2, 3]) agents.set(`k3d-k3d-agent-${index}-0`, { generation: "now", boot: "now" });
  const owner = { id: "lab-1", stack: "k3d" };
  const observed = { owner, cluster: seen, servers: new Map(), agents };
  const cluster = new K3dCluster("k3d", { file, images: { loadBalancer: false }, identity: "i", observed });
  await joinAgents("k3d", file, cluster, observed, "now");
  await pulumi.runtime.disconnect();
  const commands = events.filter((event) => /^k3d-k3d-agent/.test(event));
  // A component and its command have the same name.
  const order = [0, 1, 2, 3].map((index) => ({
    begins: commands.indexOf(`k3d-k3d-agent-${index}-0 begins`),
    done: commands.lastIndexOf(`k3d-k3d-agent-${index}-0 is done`),
  }));
  const [first, second, third, fourth] = order;
  assert.ok(first && second && third && fourth);
  assert.ok(first.done < second.begins, commands.join("\n"));
  assert.ok(second.done < third.begins, commands.join("\n"));
  assert.ok(fourth.begins < third.done, commands.join("\n"));
});
