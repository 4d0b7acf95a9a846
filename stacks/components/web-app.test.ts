import assert from "node:assert/strict";
import { test } from "node:test";
import { graceSeconds as neededSeconds } from "../../apps/shared/server.ts";
import { manifests, mockEngine } from "./mocks.ts";

await mockEngine();
const { graceSeconds, WebApp } = await import("./web-app.ts");

const image = "k3s-lab/web:1";

test("a host becomes an Ingress rule to the app's own Service", async () => {
  const { Ingress, Service } = await manifests(
    () => new WebApp("app2", { image, version: "1.2.3", replicas: 3, host: "app2.com" }),
  );
  const labels = { "app.kubernetes.io/name": "app2", "app.kubernetes.io/part-of": "k3s-lab" };
  const metadata = { name: "app2", namespace: "default", labels };
  assert.deepEqual(Ingress, {
    apiVersion: "networking.k8s.io/v1",
    kind: "Ingress",
    metadata,
    spec: {
      ingressClassName: "traefik",
      rules: [
        {
          host: "app2.com",
          http: {
            paths: [
              {
                path: "/",
                pathType: "Prefix",
                backend: { service: { name: "app2", port: { name: "http" } } },
              },
            ],
          },
        },
      ],
    },
  });
  assert.deepEqual(Service, {
    apiVersion: "v1",
    kind: "Service",
    // The Deployment waits for the pods; waiting for them here too would hold back the Ingress.
    metadata: { ...metadata, annotations: { "pulumi.com/skipAwait": "true" } },
    spec: { selector: labels, ports: [{ name: "http", port: 80, targetPort: "http" }] },
  });
});

test("a resource may be named otherwise than its app", async () => {
  const { Deployment, Ingress } = await manifests(
    () =>
      new WebApp("dev-app1", {
        image,
        version: "1",
        appName: "app1",
        namespace: "dev",
        ingressClass: "nginx",
        awaitAddress: false,
      }),
  );
  const labels = { "app.kubernetes.io/name": "app1", "app.kubernetes.io/part-of": "k3s-lab" };
  assert.deepEqual(Deployment?.metadata, { name: "app1", namespace: "dev", labels });
  assert.deepEqual(Ingress?.metadata, {
    name: "app1",
    namespace: "dev",
    labels,
    annotations: { "pulumi.com/skipAwait": "true" },
  });
  const { spec } = Ingress as unknown as { spec: { ingressClassName: string } };
  assert.equal(spec.ingressClassName, "nginx");
});

test("without a host the rule matches every request", async () => {
  const { Ingress } = await manifests(() => new WebApp("app3", { image, version: "1" }));
  const [rule] = (Ingress as { spec: { rules: object[] } }).spec.rules;
  assert.ok(rule && !("host" in rule));
});

test("whoever drains a node takes one pod of an app at a time", async () => {
  const { PodDisruptionBudget } = await manifests(() => new WebApp("app2", { image, version: "1" }));
  const labels = { "app.kubernetes.io/name": "app2", "app.kubernetes.io/part-of": "k3s-lab" };
  assert.deepEqual(PodDisruptionBudget, {
    apiVersion: "policy/v1",
    kind: "PodDisruptionBudget",
    metadata: { name: "app2", namespace: "default", labels },
    spec: { maxUnavailable: 1, selector: { matchLabels: labels } },
  });
});

interface PodTemplate {
  readonly spec: {
    readonly replicas: number;
    readonly strategy: object;
    readonly minReadySeconds: number;
    readonly template: {
      readonly spec: {
        readonly securityContext: object;
        readonly terminationGracePeriodSeconds: number;
        readonly automountServiceAccountToken: boolean;
        readonly containers: readonly Record<string, unknown>[];
      };
    };
  };
}

test("the pods run without privileges and are replaced without a gap", async () => {
  const { Deployment } = await manifests(() => new WebApp("app2", { image, version: "1.2.3", replicas: 3 }));
  const { spec } = Deployment as unknown as PodTemplate;
  assert.equal(spec.replicas, 3);
  assert.deepEqual(spec.strategy, {
    type: "RollingUpdate",
    rollingUpdate: { maxSurge: 1, maxUnavailable: 0 },
  });
  assert.equal(spec.minReadySeconds, 2);
  const pod = spec.template.spec;
  // `/slow` takes 30 s at most, and a pod that ends is asked for 15 s more at most.
  assert.equal(pod.terminationGracePeriodSeconds, 50);
  assert.equal(pod.automountServiceAccountToken, false);
  assert.deepEqual(pod.securityContext, {
    runAsNonRoot: true,
    runAsUser: 65532,
    runAsGroup: 65532,
    seccompProfile: { type: "RuntimeDefault" },
  });
  const [container] = pod.containers;
  assert.deepEqual(container?.securityContext, {
    allowPrivilegeEscalation: false,
    readOnlyRootFilesystem: true,
    capabilities: { drop: ["ALL"] },
  });
  assert.equal(container?.image, image);
  const env = container?.env as { name: string; value?: string }[];
  assert.deepEqual(
    env.filter(({ value }) => value !== undefined),
    [
      { name: "APP_NAME", value: "app2" },
      { name: "APP_VERSION", value: "1.2.3" },
      { name: "PORT", value: "8080" },
    ],
  );
});

test("the grace period leaves the app time for its last request", () => {
  assert.ok(graceSeconds >= neededSeconds, `${graceSeconds} s, and the app takes up to ${neededSeconds} s`);
});
