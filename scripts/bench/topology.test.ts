import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { parse, parseDocument } from "yaml";
import { root } from "../../stacks/lib/paths.ts";
import { readClusterPlan } from "../../stacks/model/cluster-plan.ts";
import { parseConfig } from "../../stacks/model/config.ts";
import { rivals, substrates } from "./substrates.ts";
import { oneMoreAgent, oneMoreMachine } from "./topology.ts";

const machines = `config:
  # a comment stays
  k3s-lab:network: 192.168.42.0/24
  k3s-lab:machines:
    - {name: server, role: server, ip: 192.168.42.110, cpus: 2, memory: 2048}
    - {name: agent, role: agent, ip: 192.168.42.111, cpus: 2, memory: 1024}
`;

/** The checked values of a stack file's text. */
function clusterOf(text: string) {
  const { config } = parse(text) as { config: Record<string, unknown> };
  const values = Object.entries(config).map(([key, value]) => [key.replace("k3s-lab:", ""), value]);
  return parseConfig("cluster", Object.fromEntries(values), "FILE");
}

test("an added machine copies the last one, with a new name and address", () => {
  const changed = oneMoreMachine(machines);
  assert.deepEqual(clusterOf(changed).machines.slice(0, 2), clusterOf(machines).machines);
  assert.deepEqual(clusterOf(changed).machines[2], {
    name: "agent2",
    role: "agent",
    ip: "192.168.42.112",
    cpus: 2,
    memory: 1024,
  });
  assert.match(changed, /# a comment stays/);
  assert.equal(clusterOf(oneMoreMachine(changed)).machines[3]?.ip, "192.168.42.113");
});

test("a machine added to a single server is an agent with an unused name", () => {
  const alone =
    "config: {'k3s-lab:machines': [{name: agent1, role: server, ip: 192.168.42.255}], 'k3s-lab:network': 192.168.40.0/21}";
  assert.deepEqual(
    clusterOf(oneMoreMachine(alone)).machines.map(({ name, role, ip }) => [name, role, ip]),
    [
      ["agent1", "server", "192.168.42.255"],
      ["agent2", "agent", "192.168.43.0"],
    ],
  );
});

test("k3d has no agents by default", () => {
  const text = "apiVersion: k3d.io/v1alpha5\nkind: Simple\n# how many\nservers: 1\nagents: 2\n";
  assert.equal(oneMoreAgent(text), text.replace("agents: 2", "agents: 3"));
  assert.equal(oneMoreAgent("kind: Simple\n"), "kind: Simple\nagents: 1\n");
});

for (const [name, { topology }] of Object.entries({ ...substrates, ...rivals }))
  test(`reads the file of ${name}`, async () => {
    const text = await readFile(join(root, topology.file), "utf8");
    const agents = (of: string) =>
      parseDocument(of)
        .toString()
        .match(/role: agent|^agents: \d+/gm);
    assert.notDeepEqual(agents(topology.oneMore(text)), agents(text));
  });

test("the manual k3d steps create as many nodes as the file", async () => {
  const script = await readFile(join(root, "scripts", "bench", "by-hand-k3d.sh"), "utf8");
  const option = (name: string, usual: number) =>
    Number(new RegExp(`--${name} (\\d+)`).exec(script)?.[1] ?? usual);
  const { nodes } = await readClusterPlan("k3d", root);
  assert.equal(option("servers", 1) + option("agents", 0), nodes.length);
});
