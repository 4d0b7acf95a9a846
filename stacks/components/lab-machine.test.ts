import assert from "node:assert/strict";
import { test } from "node:test";
import { mockEngine, resourcesOf } from "./fake-engine.ts";

await mockEngine();
const { LabMachine } = await import("./lab-machine.ts");

const machine = { name: "agent", role: "agent", ip: "192.168.42.111", cpus: 2, memory: 1024 } as const;
const observed = { state: "running", generation: "g1" } as const;
const commandOf = async (
  changed: object = {},
  seen: object = {},
  provider: "docker" | "hosts" = "docker",
) => {
  const [command] = await resourcesOf(
    () =>
      new LabMachine("agent", {
        machine: { ...machine, ...changed },
        provider,
        network: "192.168.42.0/24",
        observed: { ...observed, ...seen },
      }),
  );
  return command?.inputs ?? {};
};

test("records the whole machine, so that it can be destroyed after it left the stack file", async () => {
  const { environment, delete: destroy } = await commandOf();
  assert.equal(destroy, '"$K3S_LAB_ROOT/vagrant/machine.sh" destroy');
  assert.deepEqual(environment, {
    LAB_STACK: "cluster",
    LAB_PROVIDER: "docker",
    LAB_MACHINE: JSON.stringify(machine),
    LAB_NETWORK: "192.168.42.0/24",
    LAB_GENERATION: "g1",
    LAB_FOUND: "",
  });
});

test("passes its SSH configuration to the script", async () => {
  const { stdin } = await commandOf();
  assert.match(String(stdin), /^Host agent\.cluster\n {2}HostName 192\.168\.42\.111$/m);
});

test("memory changes in place; another address or a lost machine replaces it", async () => {
  const before = await commandOf();
  const moreMemory = await commandOf({ memory: 2048 });
  assert.deepEqual(moreMemory.triggers, before.triggers);
  assert.notDeepEqual(moreMemory.environment, before.environment);
  assert.notDeepEqual((await commandOf({ ip: "192.168.42.120" })).triggers, before.triggers);
  assert.notDeepEqual((await commandOf({}, { generation: "g2" })).triggers, before.triggers);
});

test("a stopped or paused machine is repaired in place", async () => {
  const before = await commandOf();
  const stopped = await commandOf({}, { state: "stopped", found: "stopped at noon" });
  assert.deepEqual(stopped.triggers, before.triggers);
  assert.notDeepEqual(stopped.environment, before.environment);
});

test("C5: a host is identified by machine-id: address, port, key and host key change in place", async () => {
  const ssh = { user: "me" };
  const host = async (changed: object = {}, generation = "m1") =>
    (await commandOf({ ssh, ...changed }, { generation }, "hosts")).triggers;
  const before = await host();
  for (const changed of [
    { ip: "10.0.0.9" },
    { ssh: { ...ssh, address: "pi.example" } },
    { ssh: { ...ssh, hostKey: "ssh-ed25519 AAAA" } },
    { ssh: { user: "you", port: 2222, key: "~/.ssh/pi", jump: "gate" } },
  ])
    assert.deepEqual(await host(changed), before);
  assert.notDeepEqual(await host({}, "m2"), before);
});
