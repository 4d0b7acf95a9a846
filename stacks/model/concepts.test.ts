import assert from "node:assert/strict";
import { test } from "node:test";
import { refuseOtherVolumes } from "../observe/data-volumes.ts";
import { type ConceptsConfig, parseConfig } from "./config.ts";

const parse = (values: object = {}): ConceptsConfig =>
  parseConfig("concepts", { cluster: { stack: "cluster" }, ...values }, "Pulumi.concepts.yaml");

test("fills in defaults", () => {
  const { namespaces, apps, static: fixed, dynamic, services } = parse();
  assert.deepEqual(namespaces, [{ name: "concepts", isolated: false }]);
  assert.deepEqual(apps, [
    { name: "web", namespace: "concepts", host: "concepts.localhost", replicas: 2, version: "1.0.0" },
  ]);
  assert.deepEqual([fixed, dynamic, services], [{ volume: "64Mi", claim: "64Mi" }, { claim: "64Mi" }, {}]);
});

const refused: readonly (readonly [string, object, RegExp])[] = [
  [
    "a claim that is larger than its volume",
    { static: { volume: "64Mi", claim: "65Mi" } },
    /^Pulumi\.concepts\.yaml: k3s-lab:static\.claim: "65Mi" is not accepted; expected at most 64Mi/,
  ],
  ["a claim that is larger than the default", { static: { claim: "1Gi" } }, /static\.claim: "1Gi"/],
  ["an invalid size", { dynamic: { claim: "0" } }, /dynamic\.claim: "0"/],
  ["an invalid class name", { dynamic: { storageClass: "A b" } }, /name of a StorageClass/],
  ["the port of SSH", { services: { loadBalancerPort: 22 } }, /loadBalancerPort: 22 is not accepted/],
  [
    "a port outside the range of node ports",
    { services: { nodePort: 8080 } },
    /nodePort: 8080 is not accepted/,
  ],
  ["another's namespace", { namespace: "default" }, /namespace: "default"/],
  ["the namespace of the lab's Traefik", { namespace: "traefik", ingress: "managed" }, /another name/],
];
for (const [what, values, message] of refused)
  test(`rejects ${what}`, () => assert.throws(() => parse(values), { exitCode: 2, message }));

test("refuses changes to existing volumes", () => {
  const claim = (name: string, storage: string, more: object) => ({
    ...{ urn: "urn", type: "kubernetes:core/v1:PersistentVolumeClaim" },
    inputs: {
      metadata: { name, namespace: "concepts" },
      spec: { resources: { requests: { storage } }, ...more },
    },
  });
  const made = [
    claim("static", "64Mi", { storageClassName: "", volumeName: "concepts-static" }),
    claim("dynamic", "64Mi", { storageClassName: "local-path" }),
  ];
  const asked = (values: object) => () =>
    refuseOtherVolumes("concepts", parse({ dynamic: { storageClass: "local-path" }, ...values }), made);
  asked({ static: { volume: "128Mi" } })();
  assert.throws(asked({ static: { claim: "32Mi" } }), {
    exitCode: 2,
    message: /^Pulumi\.concepts\.yaml: k3s-lab:static\.claim: the volumes of the pods exist .* \(64Mi\)/,
  });
  assert.throws(asked({ dynamic: {} }), /k3s-lab:dynamic\.storageClass: .*\(local-path\)/);
});
