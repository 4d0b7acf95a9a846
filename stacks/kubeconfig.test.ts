import assert from "node:assert/strict";
import { test } from "node:test";
import { parse } from "yaml";
import { rewriteKubeconfig } from "./kubeconfig.ts";

const original = `apiVersion: v1
kind: Config
clusters:
- cluster:
    certificate-authority-data: Q0E=
    server: https://127.0.0.1:6443
  name: default
contexts:
- context:
    cluster: default
    user: default
  name: default
current-context: default
preferences: {}
users:
- name: default
  user:
    client-certificate-data: Q0VSVA==
    client-key-data: S0VZ
`;

test("the kubeconfig names the server's address and carries its own context; certificates stay", () => {
  assert.deepEqual(parse(rewriteKubeconfig(original, "https://192.168.42.110:6443", "k3s-lab-cluster")), {
    apiVersion: "v1",
    kind: "Config",
    preferences: {},
    clusters: [
      {
        name: "k3s-lab-cluster",
        cluster: { "certificate-authority-data": "Q0E=", server: "https://192.168.42.110:6443" },
      },
    ],
    users: [
      { name: "k3s-lab-cluster", user: { "client-certificate-data": "Q0VSVA==", "client-key-data": "S0VZ" } },
    ],
    contexts: [{ name: "k3s-lab-cluster", context: { cluster: "k3s-lab-cluster", user: "k3s-lab-cluster" } }],
    "current-context": "k3s-lab-cluster",
  });
});

test("text that is no kubeconfig is refused", () => {
  assert.throws(() => rewriteKubeconfig("clusters: []", "https://192.168.42.110:6443", "lab"));
});
