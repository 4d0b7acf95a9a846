import assert from "node:assert/strict";
import { test } from "node:test";
import { refuseOtherVolumes } from "../observe/data-volumes.ts";
import { parseConfig } from "./config.ts";

const parse = (values: object = {}) =>
  parseConfig("my-app", { cluster: { stack: "cluster" }, ...values }, "Pulumi.my-app.yaml");

test("the guest book needs only a cluster", () => {
  const { cluster, namespace, namespaces, ingressNamespace, database, backup, apps } = parse();
  assert.deepEqual(cluster, { stack: "cluster" });
  assert.deepEqual([namespace, namespaces], ["my-app", [{ name: "my-app", isolated: true }]]);
  assert.equal(ingressNamespace, "kube-system");
  assert.deepEqual(backup, { schedule: "17 3 * * *", keep: 7, suspend: false });
  assert.deepEqual(database, { replicas: 2, primary: 0, size: "1Gi" });
  const common = { namespace: "my-app", version: "1.0.0" };
  assert.deepEqual(apps, [
    { ...common, name: "frontend", host: "my-app.com", replicas: 2 },
    { ...common, name: "api", host: "my-app.com", paths: [{ path: "/api", match: "prefix" }], replicas: 2 },
    {
      ...common,
      name: "admin",
      host: "admin.my-app.com",
      paths: [{ path: "/login", match: "prefix" }],
      replicas: 1,
    },
  ]);
});

test("a canary covers every page and has another version", () => {
  const versions = parse({ canary: "1.1.0" }).apps.map(({ canary }) => canary);
  assert.deepEqual(versions, ["1.1.0", "1.1.0", "1.1.0"]);
  assert.throws(() => parse({ canary: "1.0.0" }), /canary: "1\.0\.0" .*another version/);
});

test("additional hosts serve the page and its API, not the admin page", () => {
  const { apps } = parse({ hosts: { aliases: ["myapp.com"] } });
  assert.deepEqual(
    apps.map(({ aliases }) => aliases),
    [["myapp.com"], ["myapp.com"], undefined],
  );
});

const refused: readonly (readonly [what: string, values: object, expected: RegExp])[] = [
  ["a namespace that every cluster has", { namespace: "default" }, /namespace: "default".*another name/],
  ["a namespace of Kubernetes", { namespace: "kube-system" }, /without the prefix kube-/],
  [
    "the same host for both",
    { hosts: { site: "a.com", admin: "a.com" } },
    /hosts\.admin: .*another host than hosts\.site/,
  ],
  ["a wildcard", { hosts: { site: "*.a.com" } }, /hosts\.site: .*one host name/],
  ["an unknown host", { hosts: { page: "a.com" } }, /hosts\.page: unknown key.*Known: site, admin, aliases/],
  [
    "the same host twice",
    { hosts: { aliases: ["myapp.com", "admin.my-app.com"] } },
    /hosts\.aliases\[1\]: "admin\.my-app\.com" .*does not already have/,
  ],
  ["no database pod", { database: { replicas: 0 } }, /database\.replicas: 0 is not accepted/],
  ["three database pods", { database: { replicas: 3 } }, /database\.replicas: 3 is not accepted/],
  [
    "writes to a pod that does not exist",
    { database: { replicas: 1, primary: 1 } },
    /database\.primary: 1 is not accepted; expected an existing pod/,
  ],
  ["a volume that is too small", { database: { size: "512Mi" } }, /database\.size: .*at least 1Gi/],
  ["a volume of size zero", { database: { size: "big" } }, /database\.size: .*such as "1Gi"/],
  ["an invalid class name", { database: { storageClass: "A b" } }, /name of a StorageClass/],
  [
    "nodes without a label",
    { database: { nodes: "dedicated" } },
    /database\.nodes: .*a label KEY=VALUE of the nodes/,
  ],
  [
    "nodes with a label without a value",
    { database: { nodes: "a=" } },
    /database\.nodes: .*a label KEY=VALUE/,
  ],
  ["an invalid schedule", { backup: { schedule: "60 3 * * *" } }, /backup\.schedule: .*five fields/],
  ["no backup to keep", { backup: { keep: 0 } }, /backup\.keep: 0 is not accepted/],
  ["a title with line breaks", { title: "a\nb" }, /title: .*control characters/],
  [
    "another controller",
    { ingress: "nginx" },
    /ingressNamespace: .*namespace in which the Ingress controller "nginx" runs/,
  ],
  [
    "a cluster into which nothing loads images",
    { cluster: { kubeconfig: "k", context: "c" }, images: { app: "a:1" } },
    /images\.database: .*an image that the cluster can pull/,
  ],
];
for (const [what, values, expected] of refused)
  test(`rejects ${what}`, () => {
    assert.throws(() => parse(values), { exitCode: 2, message: expected });
  });

test("refuses changes to existing volumes", () => {
  const made = (namespace: string, storage: string, more: object = {}) => [
    {
      urn: "urn",
      type: "kubernetes:apps/v1:StatefulSet",
      inputs: {
        metadata: { name: "db", namespace },
        spec: {
          replicas: 2,
          volumeClaimTemplates: [
            { metadata: { name: "data" }, spec: { resources: { requests: { storage } }, ...more } },
          ],
        },
      },
    },
  ];
  const asked = (database: object) => parse({ database });
  for (const size of ["1Gi", "3Gi"])
    assert.throws(() => refuseOtherVolumes("my-app", asked({ size }), made("my-app", "2Gi")), {
      exitCode: 2,
      message: /^Pulumi\.my-app\.yaml: k3s-lab:database\.size: the volumes .* cannot be changed \(2Gi\)/,
    });
  assert.throws(
    () => refuseOtherVolumes("my-app", asked({ storageClass: "fast" }), made("my-app", "1Gi")),
    /database\.storageClass: .*\(the cluster's own\)/,
  );
  // One amount has several spellings; and another namespace has volumes of its own.
  refuseOtherVolumes("my-app", asked({ size: "1024Mi" }), made("my-app", "1Gi"));
  refuseOtherVolumes("my-app", asked({ size: "2Gi" }), made("other", "1Gi"));
  refuseOtherVolumes("my-app", asked({ size: "2Gi" }), []);
});
