import assert from "node:assert/strict";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, type TestContext, test } from "node:test";
import { parse, stringify } from "yaml";
import { clusterUid, healthyLab, serveApi } from "../../scripts/verify/fake-lab.ts";
import { LabError } from "../lib/errors.ts";
import type { Identity, IngressClass } from "../lib/kubernetes.ts";
import { parseConfig } from "../model/config.ts";
import { externalCluster, refuseIngress } from "./external-cluster.ts";
import { isOwn, labelsOf } from "./ownership.ts";

let directory = "";
before(async () => {
  directory = await mkdtemp(join(tmpdir(), "k3s-lab-external-"));
});
after(() => rm(directory, { recursive: true }));

const ingressClass = (name: string, labels: Record<string, string> = {}): IngressClass => ({
  metadata: { name, labels, annotations: {}, uid: "1" },
});
const ownLabels = (stack: string) => labelsOf({ lab: "lab-a", stack });

/** What a cluster has, what the stack wants, and the words it is refused with; none where it is not. */
const wishes: readonly (readonly [string, readonly IngressClass[], string, string | undefined])[] = [
  ["its IngressClass exists", [ingressClass("nginx"), ingressClass("traefik")], "traefik", undefined],
  [
    "another one exists",
    [ingressClass("nginx"), ingressClass("haproxy")],
    "traefik",
    'The cluster "ctx" has no IngressClass "traefik"; it has: nginx, haproxy. Set k3s-lab:ingress to one of these, or to managed for the lab\'s own Traefik.',
  ],
  [
    "there is none",
    [],
    "nginx",
    'The cluster "ctx" has no IngressClass "nginx"; it has none. Set k3s-lab:ingress to managed for the lab\'s own Traefik.',
  ],
  ["the lab's own on an empty cluster", [], "managed", undefined],
  ["the lab's own beside another", [ingressClass("nginx")], "managed", undefined],
  [
    "the lab's own, created by this stack",
    [ingressClass("traefik", ownLabels("apps"))],
    "managed",
    undefined,
  ],
  [
    "the lab's own where a Traefik exists",
    [ingressClass("traefik")],
    "managed",
    'The cluster "ctx" has an IngressClass "traefik" already. Set k3s-lab:ingress to traefik to use it; managed would install a second controller for it.',
  ],
  [
    "the lab's own where another stack created it",
    [ingressClass("traefik", ownLabels("apps-b"))],
    "managed",
    'The cluster "ctx" has an IngressClass "traefik" already. Set k3s-lab:ingress to traefik to use it; managed would install a second controller for it.',
  ],
  [
    "one that this stack created and would delete",
    [ingressClass("traefik", ownLabels("apps"))],
    "traefik",
    'The cluster "ctx" has no IngressClass "traefik"; it has none. Set k3s-lab:ingress to managed for the lab\'s own Traefik.',
  ],
];
for (const [what, classes, ingress, message] of wishes)
  test(`${message === undefined ? "accepted" : "refused"}: ${what}`, () => {
    const mine = (one: Identity) => isOwn(one, { lab: "lab-a", stack: "apps" }, { objects: [] });
    const look = () => refuseIngress("ctx", ingress, classes, mine);
    if (message === undefined) look();
    else assert.throws(look, (error) => isRefusal(error, message));
  });

function isRefusal(error: unknown, message: string | RegExp): true {
  assert.ok(error instanceof LabError);
  assert.equal(error.exitCode, 2);
  if (typeof message === "string") assert.equal(error.message, message);
  else assert.match(error.message, message);
  return true;
}

async function cluster(t: TestContext, classes: readonly string[] | undefined) {
  const lab = healthyLab();
  if (classes)
    lab.api["/apis/networking.k8s.io/v1/ingressclasses"] = {
      items: classes.map((name) => ({ metadata: { name } })),
    };
  const api = await serveApi(lab);
  t.after(api.close);
  const kubeconfig = join(directory, "kubeconfig");
  await writeFile(
    kubeconfig,
    stringify({
      "current-context": "other",
      clusters: [{ name: "kind", cluster: { server: api.url } }],
      users: [{ name: "kind", user: { token: "secret" } }],
      contexts: ["other", "kind-lab"].map((name) => ({ name, context: { cluster: "kind", user: "kind" } })),
    }),
  );
  return { api, kubeconfig, lab };
}

const owner = { lab: "lab-a", stack: "apps-kind" };
const wish = (kubeconfig: string, context: string, more: object = {}) => {
  const cluster = { kubeconfig, context };
  const values = { cluster, apps: [{ name: "app1" }], image: "web:1", ...more };
  return [cluster, parseConfig("apps", values, "FILE"), owner] as const;
};

test("a cluster that answers and has the IngressClass is accepted, with the stack file's context", async (t) => {
  const { kubeconfig } = await cluster(t, ["traefik"]);
  const { kubeconfig: text, identity } = await externalCluster(...wish(kubeconfig, "kind-lab"));
  const { contexts } = parse(text) as { contexts: readonly { name: string }[] };
  assert.deepEqual(
    contexts.map(({ name }) => name),
    ["kind-lab"],
  );
  assert.equal(identity, clusterUid);
});

test("a cluster without the IngressClass is refused", async (t) => {
  const { kubeconfig } = await cluster(t, ["nginx"]);
  await assert.rejects(externalCluster(...wish(kubeconfig, "kind-lab")), (error) =>
    isRefusal(error, /^The cluster "kind-lab" has no IngressClass "traefik"; it has: nginx\./),
  );
});

test("a missing kubeconfig and a missing context are named", async (t) => {
  const { kubeconfig } = await cluster(t, ["traefik"]);
  const none = join(directory, "none");
  await assert.rejects(externalCluster(...wish(none, "kind-lab")), (error) =>
    isRefusal(
      error,
      `The kubeconfig ${none} does not exist. Set k3s-lab:cluster.kubeconfig to the file that kubectl uses for your cluster, such as ~/.kube/config.`,
    ),
  );
  await assert.rejects(externalCluster(...wish(directory, "kind-lab")), (error) =>
    isRefusal(error, /cannot be read \(EISDIR\)/),
  );
  await assert.rejects(externalCluster(...wish(kubeconfig, "minikube")), (error) =>
    isRefusal(error, /no context "minikube"; it has: other, kind-lab\./),
  );
});

test("a cluster that is down or does not answer is reported with the reason", async (t) => {
  const { api, kubeconfig } = await cluster(t, undefined);
  const look = () => externalCluster(...wish(kubeconfig, "kind-lab"));
  await assert.rejects(look, (error) =>
    isRefusal(error, /^The cluster "kind-lab" cannot be used: the API server http\S+ answered 404 to \/apis/),
  );
  api.close();
  await assert.rejects(look, (error) =>
    isRefusal(error, /^The cluster "kind-lab" cannot be used: .*: connection refused\. Start the cluster/),
  );
});

test("isolated namespaces require the Ingress controller's pods in the configured namespace", async (t) => {
  const { kubeconfig } = await cluster(t, ["traefik"]);
  const isolated = { namespaces: [{ name: "dev" }] };
  await assert.rejects(externalCluster(...wish(kubeconfig, "kind-lab", isolated)), (error) =>
    isRefusal(
      error,
      /has no pod of the Ingress controller "traefik" in the namespace kube-system.*ingressNamespace/,
    ),
  );
  await externalCluster(...wish(kubeconfig, "kind-lab", { namespaces: [{ name: "dev", isolated: false }] }));
});

test("a user's missing permissions are reported before anything is created", async (t) => {
  const { lab, kubeconfig } = await cluster(t, ["traefik"]);
  lab.api["/api/v1/namespaces/default"] = { metadata: { name: "default", uid: "1" } };
  Object.assign(lab, { forbidden: ["create services in default"] });
  await assert.rejects(externalCluster(...wish(kubeconfig, "kind-lab")), (error) =>
    isRefusal(
      error,
      'The cluster "kind-lab" cannot run the stack apps-kind: its user may not create services in default. Nothing was touched. Ask for these permissions, or give the context of Pulumi.apps-kind.yaml a user who has them.',
    ),
  );
});

test("an app that scales by CPU requires a cluster with metrics", async (t) => {
  const { lab, kubeconfig } = await cluster(t, ["traefik"]);
  const look = () =>
    externalCluster(...wish(kubeconfig, "kind-lab", { apps: [{ name: "app1", replicas: { max: 2 } }] }));
  await look();
  lab.api["/apis"] = { groups: [] };
  await assert.rejects(look, (error) =>
    isRefusal(
      error,
      /^The cluster "kind-lab" has no metrics-server, .* by which app1 is scaled\. Install it, or/,
    ),
  );
});
