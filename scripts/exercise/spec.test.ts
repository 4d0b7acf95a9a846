import assert from "node:assert/strict";
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { onCluster } from "./cluster.ts";
import { fakeCluster } from "./fake-cluster.ts";
import { readSpec } from "./model.ts";
import { grade } from "./spec.ts";

const specs = join(import.meta.dirname, "specs");
const part1 = await readSpec(join(specs, "part1.yaml"));

const node = (name: string, address: string, isServer: boolean) => ({
  kind: "Node",
  metadata: {
    name,
    labels: isServer ? { "node-role.kubernetes.io/control-plane": "true" } : {},
    annotations: { "flannel.alpha.coreos.com/public-ip": address },
  },
  status: {
    addresses: [{ type: "InternalIP", address }],
    conditions: [{ type: "Ready", status: "True" }],
    nodeInfo: { kubeletVersion: "v1.25.4+k3s1" },
  },
});
const addOn = (name: string) => ({
  kind: "Deployment",
  metadata: { name, namespace: "kube-system", generation: 1 },
  spec: { replicas: 1 },
  status: { observedGeneration: 1, replicas: 1, readyReplicas: 1, updatedReplicas: 1 },
});

function machines() {
  const cluster = fakeCluster();
  cluster.objects.splice(0);
  // A student may call the machines as he likes.
  for (const one of [node("wils", "192.168.42.110", true), node("wilsw", "192.168.42.111", false)])
    cluster.add(one);
  for (const name of ["coredns", "traefik"]) cluster.add(addOn(name));
  return cluster;
}

test("a cluster that meets the spec gets all points, each with evidence", async () => {
  const checks = await grade(machines(), part1);
  assert.deepEqual(
    checks.filter(({ ok }) => !ok).map(({ title, actual }) => `${title}: ${actual}`),
    [],
  );
  assert.equal(checks[0]?.title, "Two nodes are Ready (4 points)");
  assert.match(checks[0]?.actual ?? "", /^2 of 2; wils status.* True; wilsw/);
});

test("an https address includes the port", async () => {
  for (const [address, httpsPort, https] of [
    ["10.0.0.5:8080", "8443", "10.0.0.5:8443"],
    ["10.0.0.5:8080", undefined, "10.0.0.5"],
    ["[fd00::5]", "8443", "[fd00::5]:8443"],
  ] as const) {
    const where = { stacks: [], kubeconfig: "none", address, httpsPort, signal: AbortSignal.timeout(9) };
    const asked = await onCluster(where, ({ addresses }) =>
      Promise.all([addresses("web"), addresses("websecure")]),
    );
    assert.deepEqual(asked, [[address], [https]]);
  }
});

test("a failing item loses only its own points", async () => {
  const cluster = machines();
  cluster.objects.splice(1, 1);
  const failed = (await grade(cluster, part1)).filter(({ ok }) => !ok);
  assert.deepEqual(
    failed.map(({ title }) => title),
    [
      "Two nodes are Ready (4 points)",
      "The other one is the agent, at its address (3 points)",
      "Both run K3s (2 points)",
      "Their pods reach each other over the machines' own network (4 points)",
    ],
  );
});

for (const file of await readdir(specs))
  test(`${file} is valid and adds up to twenty points`, async () => {
    const { items } = await readSpec(join(specs, file));
    assert.equal(
      items.reduce((sum, { points }) => sum + points, 0),
      20,
    );
  });
