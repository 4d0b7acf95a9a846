import assert from "node:assert/strict";
import { test } from "node:test";
import { type Listed, singleReplicaDeployments } from "./drain.ts";

const deployment = (namespace: string, name: string, replicas: number, lab?: string): Listed => ({
  kind: "Deployment",
  metadata: { namespace, name, ...(lab === undefined ? {} : { labels: { "k3s-lab/lab": lab } }) },
  spec: { replicas },
});
const pod = (namespace: string, owner: string, nodeName: string): Listed => ({
  kind: "Pod",
  metadata: {
    namespace,
    name: `${owner}-5d8f9-abc`,
    generateName: `${owner}-5d8f9-`,
    labels: { "pod-template-hash": "5d8f9" },
  },
  spec: { nodeName },
});

test("finds the lab's Deployments and the Ingress controller whose only pod is on the node", () => {
  const items = [
    deployment("dev", "app1", 1, "lab"),
    deployment("dev", "app2", 3, "lab"),
    deployment("dev", "app3", 1, "lab"),
    deployment("mine", "app1", 1),
    deployment("kube-system", "traefik", 1),
    deployment("kube-system", "coredns", 1),
    pod("dev", "app1", "one"),
    pod("dev", "app2", "one"),
    pod("dev", "app3", "two"),
    pod("mine", "app1", "one"),
    pod("kube-system", "traefik", "one"),
    pod("kube-system", "coredns", "one"),
  ];
  assert.deepEqual(singleReplicaDeployments("one", items), [
    { namespace: "dev", name: "app1" },
    { namespace: "kube-system", name: "traefik" },
  ]);
  assert.deepEqual(singleReplicaDeployments("three", items), []);
});

test("a pod that is ending or has ended does not count", () => {
  const app = deployment("dev", "app1", 1, "lab");
  const one = pod("dev", "app1", "one");
  const ends = { ...one, metadata: { ...one.metadata, deletionTimestamp: "2026-01-01T00:00:00Z" } };
  assert.deepEqual(singleReplicaDeployments("one", [app, ends]), []);
  assert.deepEqual(singleReplicaDeployments("one", [app, { ...one, status: { phase: "Failed" } }]), []);
  assert.equal(singleReplicaDeployments("one", [app, { ...one, status: { phase: "Running" } }]).length, 1);
});
