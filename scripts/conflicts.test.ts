import assert from "node:assert/strict";
import { test } from "node:test";
import { recordedClaims } from "./conflicts.ts";

test("what a stack that is up takes is what was recorded of it", () => {
  const command = (environment: Record<string, string>) => ({
    urn: "urn",
    type: "command:local:Command",
    inputs: { environment },
  });
  const machine = { name: "server", role: "server", ip: "192.168.42.110" };
  assert.deepEqual(
    recordedClaims("cluster", [command({ LAB_MACHINE: JSON.stringify(machine) }), command({})]),
    {
      stack: "cluster",
      machines: [machine],
    },
  );
  assert.deepEqual(recordedClaims("k3d", [command({ K3D_CLUSTER: "k3d" })]), {
    stack: "k3d",
    machines: [],
    k3d: { cluster: "k3d", ports: [] },
  });
  for (const damaged of ["{", "null", "[]", '{"name": 1}', ""])
    assert.deepEqual(recordedClaims("cluster", [command({ LAB_MACHINE: damaged })]).machines, []);
});
