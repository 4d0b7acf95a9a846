import assert from "node:assert/strict";
import { test } from "node:test";
import { ApiError, type KubernetesApi, type PersistentVolume, type Service } from "../lib/kubernetes.ts";
import { type OnCluster, parseConfig } from "../model/config.ts";
import { refuseUnmet } from "./unmet.ts";

const lab = { stack: "cluster" };
const other = { kubeconfig: "k", context: "kind" };
const concepts = (values: object, cluster: object = other): OnCluster =>
  parseConfig("concepts", { cluster, ...values }, "FILE");

/** @param classes of the cluster by their names: whether it is the default one. */
const refuse = (
  config: OnCluster,
  classes: Readonly<Record<string, boolean>> = { standard: true },
  services: readonly object[] = [],
  stack = "concepts",
  volumes: readonly object[] = [],
) =>
  refuseUnmet(
    {
      identities: async () =>
        Object.entries(classes).map(([name, isDefault]) => ({
          ...{ name, uid: name, labels: {}, ownerReferences: [] },
          annotations: isDefault ? { "storageclass.kubernetes.io/is-default-class": "true" } : {},
        })),
      services: async () => services as Service[],
      persistentVolumes: async () => volumes as PersistentVolume[],
    } as Partial<KubernetesApi> as KubernetesApi,
    "The cluster",
    config,
    stack,
    ({ uid }) => uid === "ours",
  );

test("rejects a missing StorageClass", async () => {
  const fast = { storageClass: "fast" };
  await assert.rejects(refuse(concepts({ dynamic: fast })), {
    exitCode: 2,
    message:
      'The cluster has no StorageClass "fast"; it has standard. Set k3s-lab:dynamic.storageClass in Pulumi.concepts.yaml to one of these.',
  });
  const book = parseConfig("my-app", { cluster: lab, database: fast }, "FILE");
  await assert.rejects(refuse(book, {}, [], "my-app"), {
    exitCode: 2,
    message:
      /no StorageClass "fast"; it has none, .* k3s-lab:database\.storageClass in Pulumi\.my-app\.yaml\. Install/,
  });
  await refuse(concepts({ dynamic: fast }), { fast: false });
});

test("without a class, the cluster's default must exist", async () => {
  await assert.rejects(refuse(concepts({}), { standard: false }), {
    exitCode: 2,
    message: /^The cluster has no default StorageClass; it has standard\. Set k3s-lab:dynamic\.storageClass/,
  });
  await refuse(concepts({}), { a: false, b: true });
});

test("K3s's own class is not required, since K3s creates it later", async () => {
  for (const dynamic of [{}, { storageClass: "local-path" }]) await refuse(concepts({ dynamic }, lab), {});
  await assert.rejects(refuse(concepts({ dynamic: { storageClass: "local-path" } }), {}), { exitCode: 2 });
});

test("rejects a port of another Service, not the stack's own", async () => {
  const config = concepts({ services: { nodePort: 30_080, loadBalancerPort: 8088 } });
  const service = (uid: string, type: string, port: number, nodePort?: number) => ({
    metadata: { name: "it", namespace: "theirs", uid, labels: {}, annotations: {} },
    spec: { type, clusterIP: "10.43.0.9", ports: [{ port, nodePort }] },
  });
  const asking = (...services: object[]) => refuse(config, undefined, services);
  await assert.rejects(asking(service("x", "NodePort", 80, 30_080)), {
    exitCode: 2,
    message:
      "Pulumi.concepts.yaml: k3s-lab:services.nodePort: 30080 is not accepted; expected a port that no other Service of the cluster has (theirs/it has it).",
  });
  await assert.rejects(
    asking(service("x", "LoadBalancer", 8088, 31_000)),
    /services\.loadBalancerPort: 8088/,
  );
  await asking(service("ours", "LoadBalancer", 8088, 30_080), service("x", "ClusterIP", 8088));
});

test("rejects a Released PersistentVolume, with the command to free it", async () => {
  const volume = (name: string, phase: string) => ({ metadata: { name }, spec: {}, status: { phase } });
  const asking = (...volumes: object[]) => refuse(concepts({}), undefined, [], undefined, volumes);
  await assert.rejects(asking(volume("concepts-static", "Released")), {
    exitCode: 2,
    message:
      /^The cluster has the PersistentVolume concepts-static of a claim that was deleted, .*: `kubectl patch persistentvolume concepts-static --type=json --patch='\[\{"op":"remove","path":"\/spec\/claimRef\/uid"\}\]'`\./,
  });
  await asking(volume("concepts-static", "Bound"), volume("theirs-static", "Released"));
});

test("what the user may not list is unknown and rejects nothing", async () => {
  const forbidden = async () => Promise.reject(new ApiError("the API server answered 403", 403));
  const api = { identities: forbidden, services: forbidden, persistentVolumes: forbidden };
  const config = concepts({ dynamic: { storageClass: "fast" }, services: { nodePort: 30_080 } });
  await refuseUnmet(api as Partial<KubernetesApi> as KubernetesApi, "It", config, "concepts", () => false);
});
