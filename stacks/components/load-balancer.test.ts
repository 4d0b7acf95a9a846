import assert from "node:assert/strict";
import { test } from "node:test";
import { mockEngine, resourcesOf } from "./fake-engine.ts";

await mockEngine();
const { LabMachine } = await import("./lab-machine.ts");
const { LoadBalancer } = await import("./load-balancer.ts");

const machine = { name: "lb", role: "loadbalancer", ip: "192.168.42.100" } as const;

async function commandOf(seen: { readonly generation?: string; readonly found?: string } = {}) {
  const observed = { state: "running", generation: seen.generation ?? "g1" } as const;
  const resources = await resourcesOf(() => {
    const made = new LabMachine("lb", { machine, provider: "docker", network: "192.168.42.0/24", observed });
    return new LoadBalancer("lb", { machine: made, observed, config: "global\n", found: seen.found });
  });
  return resources.find(({ name }) => name === "lb-haproxy")?.inputs ?? {};
}

test("passes HAProxy's configuration to the script, also to remove it", async () => {
  const { stdin, create, delete: remove, environment } = await commandOf();
  assert.equal(stdin, "global\n");
  assert.equal(create, '"$K3S_LAB_ROOT/vagrant/load-balancer.sh" install');
  assert.equal(remove, '"$K3S_LAB_ROOT/vagrant/load-balancer.sh" remove');
  assert.deepEqual(environment, {
    LAB_STACK: "cluster",
    NODE_NAME: "lb",
    MACHINE_GENERATION: "g1",
    LAB_FOUND: "",
  });
});

test("a problem or a replaced machine runs the script again in place", async () => {
  const before = await commandOf();
  for (const seen of [{ found: "HAProxy is stopped" }, { generation: "g2" }]) {
    const after = await commandOf(seen);
    assert.notDeepEqual(after.environment, before.environment);
    assert.deepEqual(after.triggers, before.triggers);
  }
});
