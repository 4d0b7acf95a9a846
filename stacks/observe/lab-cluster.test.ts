import assert from "node:assert/strict";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import * as pulumi from "@pulumi/pulumi";
import { stringify } from "yaml";
import { clusterUid, healthyLab, serveApi } from "../../scripts/verify/fake-lab.ts";
import { LabError } from "../lib/errors.ts";
import { parseConfig } from "../model/config.ts";
import { earlyKubeconfig } from "./early.ts";

const lab = healthyLab();
const api = await serveApi(lab);
after(api.close);
const kubeconfig = stringify({
  clusters: [{ name: "lab", cluster: { server: api.url } }],
  users: [{ name: "lab", user: { token: "secret" } }],
  contexts: [{ name: "lab", context: { cluster: "lab", user: "lab" } }],
});
const node = { name: "server", role: "server", address: "ssh://server.cluster" };
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
const { labCluster, refuseIngressOf, refuseWithout } = await import("./lab-cluster.ts");

const notUp = (stack: string) => (error: unknown) => {
  assert.ok(error instanceof LabError);
  assert.equal(error.exitCode, 2);
  assert.equal(
    error.message,
    `The stack "${stack}" is not up, so its cluster is unknown. Run \`scripts/lab up ${stack}\` first.`,
  );
  return true;
};

test("a stack that is up provides its cluster, with the kubeconfig as a secret", async () => {
  const cluster = await labCluster("cluster", config, owner, { state: import.meta.filename });
  assert.deepEqual([cluster.nodes, cluster.identity], [[node], clusterUid]);
  assert.equal(await pulumi.isSecret(cluster.kubeconfig), true);
});

test("a cluster that `lab up` creates is used as soon as it answers; what its stack exports comes first", async () => {
  const folder = await mkdtemp(join(tmpdir(), "lab-cluster-"));
  const state = join(folder, "cluster.json");
  const exporting = (outputs: object) => {
    const resources = [{ urn: "urn", type: "pulumi:pulumi:Stack", outputs }];
    return writeFile(state, JSON.stringify({ checkpoint: { latest: { resources } } }));
  };
  const use = () => labCluster("cluster", config, owner, { state, early: folder });
  await exporting({});
  await writeFile(earlyKubeconfig(folder), kubeconfig);
  const early = await use();
  assert.deepEqual(
    early.nodes.map(({ name, role, address }) => ({ name, role, address })),
    [node, { name: "agent", role: "agent", address: "ssh://agent.cluster" }],
  );
  assert.equal(early.identity, clusterUid);
  await exporting({ kubeconfig: "secret" });
  const { nodes, kubeconfig: exported } = await use();
  assert.deepEqual(nodes, [node]);
  const contents = [early.kubeconfig, exported].map(
    (one) => new Promise((resolve) => pulumi.unsecret(one).apply(resolve)),
  );
  assert.equal(...((await Promise.all(contents)) as [string, string]));
  await rm(folder, { recursive: true });
});

test("a stack that was taken down is refused", () =>
  assert.rejects(labCluster("k3d", config, owner, { state: import.meta.filename }), notUp("k3d")));

test("a stack that never existed is refused before Pulumi is asked for it", () =>
  assert.rejects(
    labCluster("k3d", config, owner, { state: join(import.meta.dirname, "none.json") }),
    notUp("k3d"),
  ));

test("another owner's objects on the cluster are refused; a cluster that does not answer is an error, not another cluster", async () => {
  const app = "/apis/apps/v1/namespaces/default/deployments/app1";
  lab.api[app] = { metadata: { name: "app1", uid: "1" } };
  const look = () => labCluster("cluster", config, owner, { state: import.meta.filename });
  await assert.rejects(look, (error: LabError) => {
    assert.match(error.message, /^The cluster of the stack "cluster" already has Deployment default\/app1,/);
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

test("an Ingress controller that is missing, or would exist twice, is refused", () => {
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

test("apps that need what their cluster has disabled are refused", () => {
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

test("a database without a volume provisioner is refused", () => {
  const refuse = (database: object) => () =>
    refuseWithout("cluster", { namespaces: [], database }, { serverArgs: ["--disable=local-storage"] });
  assert.throws(refuse({}), /without local-path .*nothing provisions the volumes of k3s-lab:database/);
  refuse({ storageClass: "longhorn" })();
});

test("an app that scales by CPU requires metrics", () => {
  const refuse = (app: object, ...serverArgs: string[]) =>
    refuseWithout("cluster", { namespaces: [], apps: [{ name: "api", ...app }] }, { serverArgs });
  const autoscaling = { min: 1, max: 2, cpu: 80 };
  assert.throws(
    () => refuse({ autoscaling }, "--disable=metrics-server"),
    /without metrics-server .*by which api is scaled\. Leave metrics-server out of --disable, or set the replicas of api to a number\.$/,
  );
  refuse({ autoscaling });
  refuse({}, "--disable=metrics-server");
});
