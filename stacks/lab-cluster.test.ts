import assert from "node:assert/strict";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import * as pulumi from "@pulumi/pulumi";
import { stringify } from "yaml";
import { LabError } from "../scripts/errors.ts";
import { clusterUid, healthyLab, serveApi } from "../scripts/verify/fake-lab.ts";
import { parseConfig } from "./config.ts";
import type { OwnState } from "./own-state.ts";

const lab = healthyLab();
const api = await serveApi(lab);
after(api.close);
const kubeconfig = stringify({
  clusters: [{ name: "lab", cluster: { server: api.url } }],
  users: [{ name: "lab", user: { token: "secret" } }],
  contexts: [{ name: "lab", context: { cluster: "lab", user: "lab" } }],
});
const node = { name: "server", role: "server", address: "ssh://server.cluster", installation: "1" };
const outputs: Record<string, object> = {
  "organization/k3s-lab/cluster": { kubeconfig, nodes: [node] },
  "organization/k3s-lab/k3d": {},
};
const config = parseConfig("apps", { cluster: { stack: "cluster" }, apps: [{ name: "app1" }] }, "FILE");
const owner = { lab: "lab-a", stack: "apps" };
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
const { labCluster, mayLive, refuseIngressOf, refuseWithout } = await import("./lab-cluster.ts");

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
  const cluster = await labCluster("cluster", config, owner, import.meta.filename);
  assert.deepEqual([cluster.nodes, cluster.identity], [[node], clusterUid]);
  assert.equal(await pulumi.isSecret(cluster.kubeconfig), true);
});

test("a stack that was taken down is refused", () =>
  assert.rejects(labCluster("k3d", config, owner, import.meta.filename), notUp("k3d")));

test("a stack that never was is refused before Pulumi is asked for it", () =>
  assert.rejects(labCluster("k3d", config, owner, join(import.meta.dirname, "none.json")), notUp("k3d")));

test("a namespace is gone only when every cluster of the lab's says so", async () => {
  const directory = await mkdtemp(join(tmpdir(), "k3s-lab-lives-"));
  const held = (uid: string): OwnState => ({
    objects: [{ resource: "dev", apiVersion: "v1", kind: "Namespace", name: "dev", uid }],
    onOwnCluster: true,
    environments: new Map(),
  });
  try {
    assert.equal(await mayLive(held("1"), "dev", directory), false, "the lab has no cluster any more");
    await mkdir(join(directory, "cluster"));
    await writeFile(join(directory, "cluster", "kubeconfig"), kubeconfig);
    lab.api["/api/v1/namespaces/dev"] = { metadata: { name: "dev", uid: "1" } };
    assert.equal(await mayLive(held("1"), "dev", directory), true);
    assert.equal(await mayLive(held("2"), "dev", directory), false);
    assert.equal(await mayLive({ ...held("2"), onOwnCluster: false }, "dev", directory), true);
    const silent = kubeconfig.replace(/:\d+$/m, ":1");
    await mkdir(join(directory, "k3d"));
    await writeFile(join(directory, "k3d", "kubeconfig"), silent);
    assert.equal(await mayLive(held("2"), "dev", directory), true, "one does not answer");
  } finally {
    await rm(directory, { recursive: true });
  }
});

test("what is somebody else's on the cluster is refused; a cluster that is silent is an error, not another one", async () => {
  const app = "/apis/apps/v1/namespaces/default/deployments/app1";
  lab.api[app] = { metadata: { name: "app1", uid: "1" } };
  const look = () => labCluster("cluster", config, owner, import.meta.filename);
  await assert.rejects(look, (error: LabError) => {
    assert.match(error.message, /^The cluster of the stack "cluster" has Deployment default\/app1 already/);
    return error.exitCode === 2;
  });
  delete lab.api[app];
  api.close();
  await assert.rejects(look, (error: LabError) => {
    assert.match(
      error.message,
      /"cluster" does not answer: .*connection refused\. Run `scripts\/lab up cluster`/,
    );
    return error.exitCode === 1;
  });
});

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
  assert.match(refusal("traefik", "--disable=servicelb") ?? "", /without ServiceLB.*Leave servicelb out/);
  assert.match(refusal("managed", "--disable=traefik,servicelb") ?? "", /without ServiceLB/);
  assert.equal(refusal("nginx", "--disable=servicelb"), undefined);
  assert.match(refusal("managed") ?? "", /K3s's own Traefik.*--disable=traefik/);
  assert.equal(refusal("nginx"), undefined);
});

test("apps that lack what their cluster turned off are refused", () => {
  const refusal = (isolated: boolean, ...serverArgs: string[]) => {
    try {
      refuseWithout("cluster", { namespaces: [{ name: "dev", isolated }] }, { serverArgs });
      return undefined;
    } catch (error) {
      assert.equal((error as LabError).exitCode, 2);
      return (error as LabError).message;
    }
  };
  assert.equal(refusal(true), undefined);
  assert.match(refusal(false, "--disable=coredns") ?? "", /without CoreDNS.*Leave coredns out/);
  assert.match(refusal(true, "--disable-network-policy") ?? "", /nothing isolates the namespace dev/);
  assert.equal(refusal(false, "--disable-network-policy"), undefined);
});
