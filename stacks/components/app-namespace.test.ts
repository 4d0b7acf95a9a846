import assert from "node:assert/strict";
import { test } from "node:test";
import { manifests, mockEngine } from "./fake-engine.ts";

await mockEngine();
const { AppNamespace } = await import("./app-namespace.ts");

const labels = { "app.kubernetes.io/part-of": "k3s-lab" };
const metadata = { name: "dev", namespace: "dev", labels };

const Namespace = {
  apiVersion: "v1",
  kind: "Namespace",
  metadata: { name: "dev", labels: { ...labels, "pod-security.kubernetes.io/enforce": "restricted" } },
};
const NetworkPolicy = (from: string, controller: object = { "app.kubernetes.io/name": "traefik" }) => ({
  apiVersion: "networking.k8s.io/v1",
  kind: "NetworkPolicy",
  metadata,
  spec: {
    podSelector: {},
    policyTypes: ["Ingress"],
    ingress: [
      {
        from: [
          { podSelector: {} },
          {
            namespaceSelector: { matchLabels: { "kubernetes.io/metadata.name": from } },
            podSelector: { matchLabels: controller },
          },
        ],
      },
    ],
  },
});

test("a namespace has its quota, and only it and the Ingress controller may reach its pods", async () => {
  const made = await manifests(
    () =>
      new AppNamespace("dev", { quota: { pods: 10, cpu: "1", memory: "2Gi" }, ingressNamespace: "traefik" }),
  );
  assert.deepEqual(made, {
    Namespace,
    ResourceQuota: {
      apiVersion: "v1",
      kind: "ResourceQuota",
      metadata,
      spec: { hard: { pods: "10", "requests.cpu": "1", "limits.memory": "2Gi" } },
    },
    LimitRange: {
      apiVersion: "v1",
      kind: "LimitRange",
      metadata,
      spec: {
        limits: [
          { type: "Container", defaultRequest: { cpu: "25m", memory: "48Mi" }, default: { memory: "128Mi" } },
        ],
      },
    },
    NetworkPolicy: NetworkPolicy("traefik"),
  });
});

test("without a quota it is still isolated; K3s's Ingress controller is in kube-system", async () => {
  assert.deepEqual(await manifests(() => new AppNamespace("dev")), {
    Namespace,
    NetworkPolicy: NetworkPolicy("kube-system"),
  });
});

test("an open namespace without a quota is just a namespace", async () => {
  assert.deepEqual(await manifests(() => new AppNamespace("dev", { isolated: false })), { Namespace });
});

test("with an Ingress controller other than Traefik, every pod of its namespace is admitted", async () => {
  const args = { ingress: "nginx", ingressNamespace: "ingress-nginx" };
  assert.deepEqual(await manifests(() => new AppNamespace("dev", args)), {
    Namespace,
    NetworkPolicy: NetworkPolicy("ingress-nginx", {}),
  });
});
