import assert from "node:assert/strict";
import { test } from "node:test";
import { deployed, kind, metadataOf } from "../scripts/verify/fake-deploy.ts";

const { objectsOf, pathOf } = await import("./observe/ownership.ts");
const { parseConfig } = await import("./model/config.ts");
const { default: program } = await import("./concepts.ts");

const values = { ingress: "managed", services: { loadBalancerPort: 8088 } };

test("the same pods mount every kind of volume and are behind every Service", async () => {
  const made = await deployed(program, values);
  const [deployment] = kind(made, "Deployment").filter(({ name }) => name === "web");
  assert.ok(deployment);
  assert.match(JSON.stringify(deployment.inputs), /"podAffinity":\{"required/);
  const { volumes, containers, initContainers } = (
    deployment.inputs as { spec: { template: { spec: Record<string, { name: string }[]> } } }
  ).spec.template.spec;
  const kinds = volumes?.map(({ name, ...source }) => [name, ...Object.keys(source)].join(" "));
  assert.deepEqual(kinds, [
    "host-path hostPath",
    "empty-dir emptyDir",
    "static persistentVolumeClaim",
    "dynamic persistentVolumeClaim",
  ]);
  // The app reads; who writes has a container of its own.
  assert.match(JSON.stringify(containers), /(.*"readOnly":true){4}/);
  assert.doesNotMatch(JSON.stringify(initContainers), /"readOnly":true/);
  const services = kind(made, "Service").filter((one) => metadataOf(one).namespace === "concepts");
  assert.deepEqual(
    services
      .map((one) => `${metadataOf(one).name} ${(one.inputs.spec as { type?: string }).type ?? ""}`)
      .sort(),
    [
      "web ",
      "web-external-name ExternalName",
      "web-headless ",
      "web-load-balancer LoadBalancer",
      "web-node-port NodePort",
    ],
  );
});

test("every object is checked for conflicts first", async () => {
  for (const services of [values.services, {}]) {
    const made = (await deployed(program, { ...values, services })).filter(({ type }) =>
      type.startsWith("kubernetes:"),
    );
    const places = made.map((one) => {
      const { apiVersion, kind } = one.inputs as { apiVersion: string; kind: string };
      const { name, namespace } = metadataOf(one);
      return pathOf({ apiVersion, kind, namespace, name });
    });
    const config = parseConfig(
      "concepts",
      { cluster: { kubeconfig: "k", context: "kind" }, ...values, services },
      "FILE",
    );
    assert.deepEqual(places.sort(), objectsOf(config).map(pathOf).sort());
  }
});
