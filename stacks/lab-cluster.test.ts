import assert from "node:assert/strict";
import { join } from "node:path";
import { test } from "node:test";
import * as pulumi from "@pulumi/pulumi";
import { LabError } from "../scripts/errors.ts";

const node = { name: "server", role: "server", address: "192.168.42.110", installation: "1" };
const outputs: Record<string, object> = {
  "organization/k3s-lab/cluster": { kubeconfig: "KUBECONFIG", nodes: [node] },
  "organization/k3s-lab/k3d": {},
};
await pulumi.runtime.setMocks(
  {
    newResource: ({ id, inputs }) => ({
      id: id ?? "id",
      state: { ...inputs, outputs: outputs[inputs.name], secretOutputNames: ["kubeconfig"] },
    }),
    call: ({ inputs }) => inputs,
  },
  "k3s-lab",
  "apps",
);
const { labCluster } = await import("./lab-cluster.ts");

const notUp = (stack: string) => (error: unknown) => {
  assert.ok(error instanceof LabError);
  assert.equal(error.exitCode, 2);
  assert.equal(
    error.message,
    `The stack "${stack}" is not up: nobody knows its cluster yet. Run \`scripts/lab up ${stack}\` first.`,
  );
  return true;
};

test("a stack that is up hands over its cluster, the kubeconfig as a secret", async () => {
  const { kubeconfig, nodes } = await labCluster("cluster", import.meta.filename);
  assert.deepEqual(nodes, [node]);
  assert.equal(await pulumi.isSecret(kubeconfig), true);
});

test("a stack that was taken down is refused", () =>
  assert.rejects(labCluster("k3d", import.meta.filename), notUp("k3d")));

test("a stack that never was is refused before Pulumi is asked for it", () =>
  assert.rejects(labCluster("k3d", join(import.meta.dirname, "none.json")), notUp("k3d")));
