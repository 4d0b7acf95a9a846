import assert from "node:assert/strict";
import { test } from "node:test";
import { mockEngine, resourcesOf } from "./fake-engine.ts";

await mockEngine();
const { ServiceTypes } = await import("./service-types.ts");

test("each type of Service routes to the app's pods", async () => {
  const args = { namespace: "dev", appName: "app1", nodePort: 30_080, loadBalancerPort: 8088 };
  const made = await resourcesOf(() => new ServiceTypes("services", args));
  const selector = { "app.kubernetes.io/part-of": "k3s-lab", "app.kubernetes.io/name": "app1" };
  const port = (port: number, more: object = {}) => [{ name: "http", port, targetPort: "http", ...more }];
  assert.deepEqual(Object.fromEntries(made.map(({ name, inputs }) => [name, inputs.spec])), {
    "services-web-node-port": { type: "NodePort", selector, ports: port(80, { nodePort: 30_080 }) },
    "services-web-load-balancer": { type: "LoadBalancer", selector, ports: port(8088) },
    "services-web-headless": { clusterIP: "None", selector, ports: port(80) },
    "services-web-external-name": { type: "ExternalName", externalName: "app1.dev.svc.cluster.local" },
  });
});

test("without given ports, Kubernetes chooses the node port and there is no load balancer", async () => {
  const made = await resourcesOf(() => new ServiceTypes("services", { namespace: "dev", appName: "app1" }));
  assert.deepEqual(made.map(({ name }) => name).sort(), [
    "services-web-external-name",
    "services-web-headless",
    "services-web-node-port",
  ]);
  assert.doesNotMatch(JSON.stringify(made), /nodePort/);
});
