import assert from "node:assert/strict";
import { join } from "node:path";
import { test } from "node:test";
import * as pulumi from "@pulumi/pulumi";
import { LabError } from "../scripts/errors.ts";

const node = { name: "server", role: "server", address: "ssh://server.cluster", installation: "1" };
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
const { labCluster, refuseIngressOf } = await import("./lab-cluster.ts");

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
  const { kubeconfig, nodes } = await labCluster("cluster", "traefik", import.meta.filename);
  assert.deepEqual(nodes, [node]);
  assert.equal(await pulumi.isSecret(kubeconfig), true);
});

test("a stack that was taken down is refused", () =>
  assert.rejects(labCluster("k3d", "traefik", import.meta.filename), notUp("k3d")));

test("a stack that never was is refused before Pulumi is asked for it", () =>
  assert.rejects(labCluster("k3d", "traefik", join(import.meta.dirname, "none.json")), notUp("k3d")));

test("an Ingress controller that is not there, or would be there twice, is refused", () => {
  const refusal = (ingress: string, ...serverArgs: string[]) => {
    try {
      refuseIngressOf("k3d", ingress, { serverArgs });
      return undefined;
    } catch (error) {
      assert.equal((error as LabError).exitCode, 2);
      return (error as LabError).message;
    }
  };
  assert.equal(refusal("traefik"), undefined);
  assert.match(
    refusal("traefik", "--disable=servicelb,traefik") ?? "",
    /without Traefik.*Set k3s-lab:ingress to managed/,
  );
  assert.equal(refusal("managed", "--disable=traefik"), undefined);
  assert.match(refusal("managed") ?? "", /K3s's own Traefik.*--disable=traefik/);
  assert.equal(refusal("nginx"), undefined);
});
