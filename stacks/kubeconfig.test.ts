import assert from "node:assert/strict";
import { homedir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { parse } from "yaml";
import { LabError } from "../scripts/errors.ts";
import { root } from "../scripts/paths.ts";
import { kubeconfigFile, rewriteKubeconfig, selectContext } from "./kubeconfig.ts";

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
  assert.deepEqual(parse(rewriteKubeconfig(original, ["https://192.168.42.110:6443"], "k3s-lab-cluster")), {
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

test("every further server has a context of its own", () => {
  const servers = ["https://10.0.0.1:6443", "https://10.0.0.2:6443"] as const;
  const { clusters, contexts, users, ...rest } = parse(rewriteKubeconfig(original, servers, "ha"));
  assert.deepEqual(
    clusters.map(({ name, cluster }: { name: string; cluster: { server: string } }) => [
      name,
      cluster.server,
    ]),
    [
      ["ha", servers[0]],
      ["ha-2", servers[1]],
    ],
  );
  assert.deepEqual(contexts.at(-1), { name: "ha-2", context: { cluster: "ha-2", user: "ha" } });
  assert.deepEqual([users.length, rest["current-context"]], [1, "ha"]);
});

test("text that is no kubeconfig is refused", () => {
  assert.throws(() => rewriteKubeconfig("clusters: []", ["https://192.168.42.110:6443"], "lab"));
});

test("a context becomes the current one; the rest stays", () => {
  const text = "contexts: [{ name: a }, { name: b }]\ncurrent-context: a\nusers: []\n";
  assert.deepEqual(parse(selectContext(text, "b")), {
    contexts: [{ name: "a" }, { name: "b" }],
    "current-context": "b",
    users: [],
  });
  assert.throws(
    () => selectContext(text, "c"),
    (error) =>
      error instanceof LabError &&
      error.exitCode === 2 &&
      /no context "c"; it has: a, b\./.test(error.message),
  );
  for (const none of ["a: [", "users: []", ""])
    assert.throws(
      () => selectContext(none, "a"),
      (error) =>
        error instanceof LabError && error.exitCode === 2 && /no list of contexts/.test(error.message),
    );
});

test("a kubeconfig is found in the home folder, beside the stack file, or where it is said to be", () => {
  assert.equal(kubeconfigFile("~/.kube/config"), join(homedir(), ".kube/config"));
  assert.equal(kubeconfigFile("kube/config"), join(root, "kube/config"));
  assert.equal(kubeconfigFile("kube", "/elsewhere"), "/elsewhere/kube");
  assert.equal(kubeconfigFile("/etc/kube", "/elsewhere"), "/etc/kube");
});
