import assert from "node:assert/strict";
import { test } from "node:test";
import { mockEngine, resourcesOf } from "./mocks.ts";

await mockEngine();
const { LabMachine } = await import("./lab-machine.ts");

const machine = { name: "agent", role: "agent", ip: "192.168.42.111", cpus: 2, memory: 1024 } as const;
const observed = { generation: "g1", boot: "b1" };
const commandOf = async (changed: object = {}, seen: object = {}) => {
  const [command] = await resourcesOf(
    () =>
      new LabMachine("agent", {
        machine: { ...machine, ...changed },
        provider: "docker",
        observed: { ...observed, ...seen },
      }),
  );
  return command?.inputs ?? {};
};

test("the machine is recorded whole, so that it can be destroyed when the stack file no longer names it", async () => {
  const { environment, delete: destroy } = await commandOf();
  assert.equal(destroy, '"$K3S_LAB_ROOT/vagrant/machine.sh" destroy');
  assert.deepEqual(environment, {
    LAB_STACK: "cluster",
    LAB_PROVIDER: "docker",
    LAB_MACHINE: JSON.stringify(machine),
    LAB_GENERATION: "g1",
    LAB_BOOT: "b1",
  });
});

test("its ssh configuration is handed to the script", async () => {
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
  assert.deepEqual((await commandOf({}, { boot: "b2" })).triggers, before.triggers);
});
