import assert from "node:assert/strict";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import * as pulumi from "@pulumi/pulumi";
import { stringify } from "yaml";
import { healthyLab, serveApi } from "../scripts/verify/fake-lab.ts";
import { type Made, mockEngine, resourcesOf } from "./components/mocks.ts";

await mockEngine();
const { default: program } = await import("./apps.ts");

/** Runs the program on a cluster that no stack of the lab made, and that has no IngressClass. */
async function deploy(config: object): Promise<readonly Made[]> {
  const directory = await mkdtemp(join(tmpdir(), "k3s-lab-apps-"));
  const lab = healthyLab();
  lab.api["/apis/networking.k8s.io/v1/ingressclasses"] = { items: [] };
  const api = await serveApi(lab);
  try {
    const kubeconfig = join(directory, "kubeconfig");
    await writeFile(
      kubeconfig,
      stringify({
        clusters: [{ name: "kind", cluster: { server: api.url } }],
        users: [{ name: "kind", user: { token: "secret" } }],
        contexts: [{ name: "kind", context: { cluster: "kind", user: "kind" } }],
      }),
    );
    const values = {
      cluster: { kubeconfig, context: "kind" },
      ingress: "managed",
      image: "web:1",
      ...config,
    };
    pulumi.runtime.setAllConfig(
      Object.fromEntries(
        Object.entries(values).map(([key, value]) => [
          `k3s-lab:${key}`,
          typeof value === "string" ? value : JSON.stringify(value),
        ]),
      ),
    );
    return await resourcesOf(program);
  } finally {
    api.close();
    await rm(directory, { recursive: true });
  }
}

const metadataOf = ({ inputs }: Made) =>
  inputs.metadata as { name: string; namespace?: string; annotations?: object };
const kind = (made: readonly Made[], word: string) => made.filter(({ type }) => type.endsWith(`:${word}`));

test("apps of the stack's own namespace keep their names; others carry their namespace", async () => {
  const made = await deploy({
    namespaces: [{ name: "dev", quota: { pods: 10 } }],
    apps: [
      { name: "app1", host: "app1.com" },
      { name: "app1", host: "app1.dev.localhost", namespace: "dev" },
    ],
  });
  const deployments = kind(made, "Deployment").map((one) => {
    const { name, namespace } = metadataOf(one);
    return [one.name, namespace, name];
  });
  assert.deepEqual(deployments.sort(), [
    ["app1", "default", "app1"],
    ["dev-app1", "dev", "app1"],
    ["traefik", "traefik", "traefik"],
  ]);
  const position = (type: string, name: string) =>
    made.findIndex((one) => one.type.endsWith(`:${type}`) && one.name === name);
  for (const before of ["Namespace", "ResourceQuota", "NetworkPolicy"])
    assert.ok(position(before, "dev") < position("Deployment", "dev-app1"), `${before} is there first`);
});

test("the lab's own Traefik is the one that may ask pods of an isolated namespace, and no address is waited for", async () => {
  const made = await deploy({
    namespaces: [{ name: "dev" }],
    apps: [{ name: "app1", namespace: "dev" }],
  });
  const [policy] = kind(made, "NetworkPolicy");
  assert.match(JSON.stringify(policy?.inputs), /"kubernetes\.io\/metadata\.name":"traefik"/);
  const [ingress] = kind(made, "Ingress");
  assert.ok(ingress);
  assert.deepEqual(metadataOf(ingress).annotations, { "pulumi.com/skipAwait": "true" });
  assert.equal((ingress.inputs.spec as { ingressClassName: string }).ingressClassName, "traefik");
});

test("nothing is made on a cluster that cannot route requests", async () => {
  await assert.rejects(
    deploy({ ingress: "nginx", apps: [{ name: "app1" }] }),
    /no IngressClass "nginx"; it has none/,
  );
});

test("the image of the stack file is used as it is, and the cluster is told from others by its context", async () => {
  const made = await deploy({ apps: [{ name: "app1" }] });
  const app = kind(made, "Deployment").find(({ name }) => name === "app1");
  assert.match(JSON.stringify(app?.inputs), /"image":"web:1"/);
  assert.deepEqual(kind(made, "Command"), []);
  assert.equal(kind(made, "kubernetes")[0]?.inputs.clusterIdentifier, "cluster/kind");
});
