import assert from "node:assert/strict";
import { test } from "node:test";
import type { StateResource } from "../lib/state.ts";
import { formerTriggers, recordedGeneration } from "./former-state.ts";

const time = "2026-01-01T00:00:00.000Z";
const command = (
  component: string,
  name: string,
  triggers: readonly string[],
  LAB_GENERATION = time,
): StateResource => ({
  urn: `urn:pulumi:cluster::k3s-lab::k3s-lab:cluster:${component}$command:local:Command::${name}`,
  type: "command:local:Command",
  inputs: { triggers, environment: { LAB_GENERATION } },
});
const agent = { name: "agent", ip: "192.168.42.111" };
const seen = (generation: string, state: "running" | "absent" = "running") => ({ state, generation });

test("upgrade: the node of a machine that a former version made keeps its single trigger", () => {
  const node = [`${time}/2026-01-01T00:00:01.000Z`];
  const state = [
    command("LabMachine", "agent", ["docker", agent.ip, time]),
    command("K3sNode", "agent", node),
  ];
  assert.equal(recordedGeneration(state, "agent"), time);
  assert.equal(recordedGeneration(state, "gent"), undefined);
  assert.deepEqual(formerTriggers(state, agent, seen(time)), { node });
  assert.deepEqual(formerTriggers(state, agent, seen("2026-02-02T00:00:00.000Z", "absent")), {});
  assert.deepEqual(formerTriggers(state, agent, seen("another")), {});
  assert.deepEqual(formerTriggers([], agent, seen(time)), {});
});

test("upgrade: a host of a former version keeps its triggers until another host has its name", () => {
  const machine = ["hosts", agent.ip, time, "ssh-ed25519 AAAA"];
  const node = command("K3sNode", "agent", [time]);
  const first = [command("LabMachine", "agent", machine), node];
  assert.deepEqual(formerTriggers(first, agent, seen("m1")), { machine, node: [time] });
  const later = [command("LabMachine", "agent", machine, "m1"), node];
  assert.deepEqual(formerTriggers(later, { ...agent, ip: "192.168.42.112" }, seen("m1")), {
    machine,
    node: [time],
  });
  assert.deepEqual(formerTriggers(later, agent, seen("m2")), {});
});

test("what this version recorded is left to it", () => {
  const state = [
    command("LabMachine", "agent", ["docker", agent.ip, time]),
    command("K3sNode", "agent", [time, ""]),
  ];
  assert.deepEqual(formerTriggers(state, agent, seen(time)), {});
  const host = [
    command("LabMachine", "agent", ["hosts", "m1"], "m1"),
    command("K3sNode", "agent", ["m1", ""]),
  ];
  assert.deepEqual(formerTriggers(host, agent, seen("m1")), {});
});
