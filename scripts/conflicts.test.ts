import assert from "node:assert/strict";
import { test } from "node:test";
import { type Claims, conflictsOf } from "../stacks/model/conflicts.ts";
import { recordedClaims } from "./conflicts.ts";

test("a running stack uses what its state recorded", () => {
  const command = (environment: Record<string, string>) => ({
    urn: "urn",
    type: "command:local:Command",
    inputs: { environment },
  });
  const machine = { name: "server", role: "server", ip: "192.168.42.110" };
  assert.deepEqual(
    recordedClaims("cluster", [command({ LAB_MACHINE: JSON.stringify(machine) }), command({})]),
    {
      stack: "cluster",
      machines: [machine],
    },
  );
  assert.deepEqual(recordedClaims("k3d", [command({ K3D_CLUSTER: "k3d" })]), {
    stack: "k3d",
    machines: [],
    k3d: { cluster: "k3d", ports: [] },
  });
  for (const damaged of ["{", "null", "[]", '{"name": 1}', ""])
    assert.deepEqual(recordedClaims("cluster", [command({ LAB_MACHINE: damaged })]).machines, []);
});

test("a stack with running apps uses their hosts", () => {
  const resource = (type: string, inputs: object) => ({
    urn: "urn",
    type,
    inputs: { ...inputs },
  });
  const metadata = { name: "app1", namespace: "dev" };
  const apps = [
    resource("pulumi:pulumi:StackReference", { name: "organization/k3s-lab/cluster" }),
    resource("kubernetes:networking.k8s.io/v1:Ingress", { metadata, spec: { rules: [{ host: "a.com" }] } }),
    resource("kubernetes:networking.k8s.io/v1:Ingress", { metadata, spec: { rules: [{}] } }),
  ];
  const up = recordedClaims("apps", apps);
  const other: Claims = {
    stack: "apps-b",
    apps: {
      cluster: { stack: "cluster" },
      namespaces: [],
      ingress: "traefik",
      apps: [{ name: "web", namespace: "default", host: "a.com" }],
    },
  };
  assert.match(
    conflictsOf([up, other]).join(),
    /apps and apps-b both take the host a\.com on the stack cluster/,
  );
  // Where they are on a cluster of somebody else's, nobody knows its context.
  assert.equal(recordedClaims("apps", apps.slice(1)).apps, undefined);
});
