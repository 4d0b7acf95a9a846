import assert from "node:assert/strict";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { readOwnState } from "./own-state.ts";

let directory = "";
before(async () => {
  directory = await mkdtemp(join(tmpdir(), "k3s-lab-state-"));
});
after(() => rm(directory, { recursive: true }));

const urn = (type: string, name: string): string =>
  `urn:pulumi:apps::k3s-lab::k3s-lab:apps:WebApp$${type}::${name}`;

test("identifies objects by UID, the cluster by its identity, commands by their inputs", async () => {
  const file = join(directory, "apps.json");
  const metadata = { name: "app1", namespace: "dev", uid: "u1" };
  const resources = [
    {
      urn: urn("pulumi:providers:kubernetes", "cluster"),
      type: "pulumi:providers:kubernetes",
      inputs: { clusterIdentifier: "apps", deleteUnreachable: "true", kubeconfig: { ciphertext: "…" } },
    },
    {
      urn: urn("kubernetes:apps/v1:Deployment", "dev-app1"),
      type: "kubernetes:apps/v1:Deployment",
      inputs: {
        metadata: {
          ...{ name: "app1", labels: { "k3s-lab/lab": "id" } },
          annotations: { "k3s-lab/autoscaled": "true" },
        },
        spec: { replicas: 0 },
      },
      outputs: { apiVersion: "apps/v1", kind: "Deployment", metadata, __fieldManager: "pulumi-kubernetes-1" },
    },
    {
      urn: urn("kubernetes:core/v1:Namespace", "dev"),
      type: "kubernetes:core/v1:Namespace",
      inputs: { metadata: { name: "dev" } },
      outputs: { apiVersion: "v1", kind: "Namespace", metadata: { name: "dev", uid: "u2" } },
    },
    {
      urn: urn("command:local:Command", "web-server"),
      type: "command:local:Command",
      inputs: { environment: { IMAGE: "web:1", LOADED: "then" } },
    },
    { urn: urn("k3s-lab:apps:WebApp", "dev-app1"), type: "k3s-lab:apps:WebApp" },
  ];
  const made = { apiVersion: "v1", kind: "Service", metadata: { name: "app1", namespace: "dev" } };
  const resource = { urn: urn("kubernetes:core/v1:Service", "dev-app1"), type: "kubernetes:core/v1:Service" };
  const pending_operations = [{ resource: { ...resource, inputs: made }, type: "creating" }];
  const latest = { resources, pending_operations };
  await writeFile(file, JSON.stringify({ version: 3, checkpoint: { latest } }));
  assert.deepEqual(await readOwnState("apps", file), {
    objects: [
      { apiVersion: "apps/v1", kind: "Deployment", ...metadata, lab: "id" },
      { apiVersion: "v1", kind: "Namespace", name: "dev", uid: "u2", lab: undefined },
    ],
    pending: [{ apiVersion: "v1", kind: "Service", namespace: "dev", name: "app1" }],
    managers: new Map([["kubernetes:apps/v1:Deployment dev-app1", "pulumi-kubernetes-1"]]),
    environments: new Map([["web-server", { IMAGE: "web:1", LOADED: "then" }]]),
    stopped: new Set(["kubernetes:apps/v1:Deployment dev-app1"]),
    autoscaled: new Set(["kubernetes:apps/v1:Deployment dev-app1"]),
  });
});

test("without a state nothing is known; a truncated one is an error that names the backup", async () => {
  assert.deepEqual(await readOwnState("apps", join(directory, "none.json")), {
    objects: [],
    pending: [],
    managers: new Map(),
    environments: new Map(),
    stopped: new Set(),
    autoscaled: new Set(),
  });
  const file = join(directory, "half.json");
  for (const half of ["", '{"checkpoint": {"latest"', "[]"]) {
    await writeFile(file, half);
    await assert.rejects(readOwnState("apps", file), /half\.json, .*cannot be read: .*\.bak/);
  }
  await writeFile(file, '{"checkpoint": {"latest": null}}');
  assert.deepEqual((await readOwnState("apps", file)).objects, []);
});
