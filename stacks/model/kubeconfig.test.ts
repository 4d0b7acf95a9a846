import assert from "node:assert/strict";
import { homedir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { parse, stringify } from "yaml";
import { LabError } from "../lib/errors.ts";
import { root } from "../lib/paths.ts";
import { chooseContext, kubeconfigFile, kubeconfigOf, rewriteKubeconfig } from "./kubeconfig.ts";

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

test("has the server's address and its own context, and keeps the certificates", () => {
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

test("every further server has its own context", () => {
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

test("rejects text that is not a kubeconfig", () => {
  assert.throws(() => rewriteKubeconfig("clusters: []", ["https://192.168.42.110:6443"], "lab"));
});

const file = "/home/user/.kube/config";
const several = (users: readonly object[], cluster: object = {}): string =>
  stringify({
    "current-context": "a",
    clusters: [
      { name: "a", cluster: { server: "https://a:6443", ...cluster } },
      { name: "b", cluster: { server: "https://b:6443" } },
    ],
    users,
    contexts: [
      { name: "a", context: { cluster: "a", user: "a", namespace: "mine" } },
      { name: "b", context: { cluster: "b", user: "b" } },
      { name: "half", context: { cluster: "b" } },
    ],
  });
const kubeconfig = (content: string, context?: string): unknown =>
  parse(kubeconfigOf(chooseContext(content, file, context)));

test("uses only the chosen context with its cluster and user", () => {
  const text = several([
    { name: "a", user: { token: "secret-a" } },
    { name: "b", user: { token: "secret-b" } },
  ]);
  assert.deepEqual(kubeconfig(text), {
    apiVersion: "v1",
    kind: "Config",
    clusters: [{ name: "a", cluster: { server: "https://a:6443" } }],
    users: [{ name: "a", user: { token: "secret-a" } }],
    contexts: [{ name: "a", context: { cluster: "a", user: "a", namespace: "mine" } }],
    "current-context": "a",
  });
  assert.doesNotMatch(JSON.stringify(kubeconfig(text, "b")), /secret-a/);
});

test("ignores changes elsewhere in the file: other contexts, extensions, the current context", () => {
  const before = several([{ name: "b", user: { token: "t" } }]);
  const minikube = { extensions: [{ name: "cluster_info", extension: { "last-update": "now" } }] };
  const after = several(
    [
      { name: "b", user: { token: "t", ...minikube } },
      { name: "new", user: null },
    ],
    minikube,
  );
  const changed = after.replace("current-context: a", "current-context: half");
  assert.deepEqual(kubeconfig(changed, "b"), kubeconfig(before, "b"));
});

test("ignores incomplete other contexts; the chosen one may lack a user", () => {
  assert.match(JSON.stringify(kubeconfig(several([]), "half")), /"user":\{\}/);
  assert.throws(() => kubeconfig(several([]), "b"), /has no user "b", which its context "b" names/);
  assert.match(JSON.stringify(kubeconfig(several([{ name: "a", user: {} }]), "a")), /https:\/\/a:6443/);
});

test("paths are relative to the file's folder, as in kubectl", () => {
  const user = {
    "client-certificate": "pki/client.crt",
    "client-key": "/etc/client.key",
    tokenFile: "token",
    exec: { apiVersion: "client.authentication.k8s.io/v1beta1", command: "./login", args: ["-x"], env: null },
  };
  const chosen = chooseContext(several([{ name: "a", user }], { "certificate-authority": "ca.crt" }), file);
  assert.equal(chosen.cluster["certificate-authority"], "/home/user/.kube/ca.crt");
  assert.equal(chosen.user["client-certificate"], "/home/user/.kube/pki/client.crt");
  assert.equal(chosen.user["client-key"], "/etc/client.key");
  assert.equal(chosen.user.tokenFile, "/home/user/.kube/token");
  assert.equal(chosen.user.exec?.command, "/home/user/.kube/login");
});

test("passes on everything that client-go supports", () => {
  const cluster = {
    "insecure-skip-tls-verify": true,
    "tls-server-name": "kubernetes",
    "proxy-url": "http://127.0.0.1:3128",
    "disable-compression": true,
  };
  const user = { token: "t", "as-groups": ["system:masters"], as: "me" };
  const text = JSON.stringify(kubeconfig(several([{ name: "a", user }], cluster)));
  for (const part of [...Object.keys(cluster), "as-groups"]) assert.match(text, new RegExp(`"${part}"`));
});

test("a server without a scheme is reached by HTTP, as by kubectl; merge keys are merged", () => {
  const serverOf = (user: object, cluster: object) =>
    chooseContext(several([{ name: "a", user }], cluster), file).cluster.server;
  assert.equal(serverOf({}, { server: "localhost:8001" }), "http://localhost:8001");
  assert.equal(serverOf({}, { server: "h", "insecure-skip-tls-verify": true }), "http://h");
  const cert = { "client-certificate": "c", "client-key": "k" };
  assert.equal(serverOf(cert, { server: "h:6443" }), "http://h:6443");
  const text = several([{ name: "a", user: {} }]).replace(
    "server: https://a:6443",
    "<<: &x {server: https://c}",
  );
  assert.equal(chooseContext(text, file).cluster.server, "https://c");
});

test("an invalid or incomplete kubeconfig is rejected without showing its content", () => {
  const refusals: readonly (readonly [string, string | undefined, RegExp])[] = [
    [several([]), "c", /has no context "c"; it has: a, b, half\. Set k3s-lab:cluster\.context/],
    ["users: [secret", "a", /is not a kubeconfig/],
    ["secret", "a", /is not a kubeconfig/],
    ["users: []", "a", /has no context\./],
    ["contexts: null\nclusters: null", undefined, /has no context\./],
    [
      several([{ name: "a", user: { exec: { command: "" } } }]),
      "a",
      /the user of its context "a" is wrong at exec/,
    ],
    [several([{ name: "a", user: { "auth-provider": { name: "gcp" } } }]), "a", /auth-provider/],
    [
      several([{ name: "a", user: {} }], { server: "" }),
      "a",
      /the cluster of its context "a" is wrong at server/,
    ],
    ...["ftp://h", "h:99999", "https://h:99999", "https://h\n", "not a url"].map(
      (server) =>
        [several([{ name: "a", user: {} }], { server }), "a", /the cluster .* is wrong at server/] as const,
    ),
    [several([{ name: "a", user: {} }], { "proxy-url": "no url" }), "a", /wrong at proxy-url/],
    [
      several([{ name: "a", user: {} }], { "certificate-authority-data": "§" }),
      "a",
      /certificate-authority-data/,
    ],
    [
      several([{ name: "a", user: {} }], {
        "insecure-skip-tls-verify": true,
        "certificate-authority-data": "YQ==",
      }),
      "a",
      /wrong at insecure-skip-tls-verify/,
    ],
    ...(
      [
        [{ token: 5 }, "token"],
        [{ tokenFile: ["secret"] }, "tokenFile"],
        [{ "client-certificate-data": "YQ==" }, "client-key"],
        [{ "client-key": "key.pem" }, "client-certificate"],
        [{ password: "secret" }, "username"],
        [{ "as-groups": ["secret"] }, "as"],
        [{ username: "me", password: "secret", token: "secret" }, "username"],
        [{ exec: { apiVersion: "client.authentication.k8s.io/v1alpha1", command: "x" } }, "exec.apiVersion"],
        [{ exec: { apiVersion: "client.authentication.k8s.io/v1", command: "x" } }, "exec.interactiveMode"],
        [
          {
            exec: {
              ...{ apiVersion: "client.authentication.k8s.io/v1", command: "x" },
              interactiveMode: "Always",
            },
          },
          "exec.interactiveMode",
        ],
      ] as const
    ).map(
      ([user, key]) =>
        [
          several([{ name: "a", user }]),
          "a",
          new RegExp(`the user of its context "a" is wrong at ${key}\\.`),
        ] as const,
    ),
    [
      several([
        { name: "a", user: { token: "secret" } },
        { name: "a", user: {} },
      ]),
      "a",
      /has two users with the name "a", and kubectl refuses it/,
    ],
    [`${several([{ name: "a", user: {} }])}kind: Pod\n`, "a", /is not a kubeconfig/],
    [
      several([{ name: "a", user: { username: "me", password: "secret" } }]).replace(
        "password: secret",
        "password: yes",
      ),
      "a",
      /has values for "a" that kubectl reads differently, such as yes or 0777\. Put them in quotes/,
    ],
  ];
  for (const [text, context, message] of refusals)
    assert.throws(
      () => chooseContext(text, file, context),
      (error) => {
        assert.ok(error instanceof LabError);
        assert.equal(error.exitCode, 2);
        assert.match(error.message, message);
        assert.doesNotMatch(error.message, /secret/);
        return true;
      },
    );
});

test("finds a kubeconfig in the home folder, beside the stack file, or at the given path", () => {
  assert.equal(kubeconfigFile("~/.kube/config"), join(homedir(), ".kube/config"));
  assert.equal(kubeconfigFile("kube/config"), join(root, "kube/config"));
  assert.equal(kubeconfigFile("kube", "/elsewhere"), "/elsewhere/kube");
  assert.equal(kubeconfigFile("/etc/kube", "/elsewhere"), "/etc/kube");
});
