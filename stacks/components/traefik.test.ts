import assert from "node:assert/strict";
import { test } from "node:test";
import { manifests, mockEngine } from "./fake-engine.ts";

await mockEngine();
const { Traefik } = await import("./traefik.ts");

const selector = { "app.kubernetes.io/name": "traefik", "app.kubernetes.io/part-of": "k3s-lab" };
const labels = { ...selector, "app.kubernetes.io/instance": "cluster" };
const metadata = { name: "traefik", namespace: "traefik", labels };
const clusterWide = { name: "k3s-lab-traefik", labels };
const read = ["get", "list", "watch"];

test("Traefik has all that an Ingress controller needs and does not wait for a load balancer", async () => {
  const { Deployment, ...made } = await manifests(() => new Traefik("traefik"));
  assert.deepEqual(made, {
    Namespace: {
      apiVersion: "v1",
      kind: "Namespace",
      metadata: {
        name: "traefik",
        labels: {
          "app.kubernetes.io/part-of": "k3s-lab",
          "pod-security.kubernetes.io/enforce": "restricted",
        },
      },
    },
    ServiceAccount: { apiVersion: "v1", kind: "ServiceAccount", metadata },
    ClusterRole: {
      apiVersion: "rbac.authorization.k8s.io/v1",
      kind: "ClusterRole",
      metadata: clusterWide,
      rules: [
        { apiGroups: [""], resources: ["services", "endpoints", "secrets", "nodes"], verbs: read },
        { apiGroups: ["discovery.k8s.io"], resources: ["endpointslices"], verbs: ["list", "watch"] },
        {
          apiGroups: ["extensions", "networking.k8s.io"],
          resources: ["ingresses", "ingressclasses"],
          verbs: read,
        },
        {
          apiGroups: ["extensions", "networking.k8s.io"],
          resources: ["ingresses/status"],
          verbs: ["update"],
        },
      ],
    },
    ClusterRoleBinding: {
      apiVersion: "rbac.authorization.k8s.io/v1",
      kind: "ClusterRoleBinding",
      metadata: clusterWide,
      roleRef: { apiGroup: "rbac.authorization.k8s.io", kind: "ClusterRole", name: "k3s-lab-traefik" },
      subjects: [{ kind: "ServiceAccount", name: "traefik", namespace: "traefik" }],
    },
    IngressClass: {
      apiVersion: "networking.k8s.io/v1",
      kind: "IngressClass",
      metadata: { name: "traefik", labels },
      spec: { controller: "traefik.io/ingress-controller" },
    },
    Service: {
      apiVersion: "v1",
      kind: "Service",
      metadata: { ...metadata, annotations: { "pulumi.com/skipAwait": "true" } },
      spec: {
        type: "LoadBalancer",
        selector,
        ports: [
          { name: "web", port: 80, targetPort: "web" },
          { name: "websecure", port: 443, targetPort: "websecure" },
        ],
      },
    },
  });
  const ping = { path: "/ping", port: "traefik" };
  assert.deepEqual(Deployment, {
    apiVersion: "apps/v1",
    kind: "Deployment",
    metadata,
    spec: {
      replicas: 1,
      strategy: { type: "RollingUpdate", rollingUpdate: { maxSurge: 1, maxUnavailable: 0 } },
      selector: { matchLabels: selector },
      template: {
        metadata: { labels },
        spec: {
          serviceAccountName: "traefik",
          enableServiceLinks: false,
          terminationGracePeriodSeconds: 50,
          securityContext: {
            runAsNonRoot: true,
            runAsUser: 65532,
            runAsGroup: 65532,
            seccompProfile: { type: "RuntimeDefault" },
          },
          containers: [
            {
              name: "traefik",
              image: "rancher/mirrored-library-traefik:2.9.4",
              imagePullPolicy: "IfNotPresent",
              args: [
                "--global.checknewversion=false",
                "--global.sendanonymoususage=false",
                "--entrypoints.web.address=:8000/tcp",
                "--entrypoints.websecure.address=:8443/tcp",
                "--entrypoints.traefik.address=:9000/tcp",
                "--entrypoints.web.transport.lifecycle.requestacceptgracetimeout=10",
                "--entrypoints.web.transport.lifecycle.gracetimeout=35",
                "--entrypoints.websecure.transport.lifecycle.requestacceptgracetimeout=10",
                "--entrypoints.websecure.transport.lifecycle.gracetimeout=35",
                "--entrypoints.websecure.http.tls=true",
                "--ping=true",
                "--providers.kubernetesingress=true",
                "--providers.kubernetesingress.ingressclass=traefik",
                "--providers.kubernetesingress.ingressendpoint.publishedservice=traefik/traefik",
              ],
              ports: [
                { name: "web", containerPort: 8000 },
                { name: "websecure", containerPort: 8443 },
                { name: "traefik", containerPort: 9000 },
              ],
              startupProbe: { httpGet: ping, periodSeconds: 1, failureThreshold: 60 },
              readinessProbe: { httpGet: ping, periodSeconds: 5 },
              livenessProbe: { httpGet: ping, periodSeconds: 10, failureThreshold: 3 },
              resources: { requests: { cpu: "50m", memory: "64Mi" }, limits: { memory: "256Mi" } },
              securityContext: {
                allowPrivilegeEscalation: false,
                readOnlyRootFilesystem: true,
                capabilities: { drop: ["ALL"] },
              },
            },
          ],
        },
      },
    },
  });
});
