import assert from "node:assert/strict";
import { test } from "node:test";
import type * as pulumi from "@pulumi/pulumi";
import { LabError } from "../lib/errors.ts";
import { ApiError, type Identity, type Ingress, type KubernetesApi } from "../lib/kubernetes.ts";
import { parseConfig } from "../model/config.ts";
import type { HeldObject, OwnState } from "./own-state.ts";
import { inspectCluster, isOwn, labelling, labelsOf, objectsOf, othersIn, pathOf } from "./ownership.ts";

const owner = { lab: "lab-a", stack: "apps" };
const nothing: OwnState = {
  ...{ objects: [], pending: [], managers: new Map(), environments: new Map() },
  ...{ stopped: new Set(), autoscaled: new Set() },
};
const held = (uid: string, lab?: string): HeldObject => ({
  apiVersion: "apps/v1",
  kind: "Deployment",
  namespace: "default",
  name: "app1",
  uid,
  lab,
});
const config = parseConfig(
  "apps",
  {
    cluster: { stack: "cluster" },
    namespaces: [{ name: "dev" }],
    apps: [
      { name: "app1", host: "app1.com" },
      { name: "app2", namespace: "dev" },
    ],
  },
  "FILE",
);
const uid = "5f1c2f3e-0d1e-4f5a-9b6c-7d8e9f0a1b2c";

/** A cluster with these objects, beside what every cluster has. */
const cluster = (
  objects: Record<string, Identity>,
  ingresses: readonly Ingress[] = [],
): Pick<KubernetesApi, "object" | "ingresses"> => ({
  ingresses: async () => [...ingresses],
  object: async (path) =>
    ({
      "/api/v1/namespaces/kube-system": { uid, labels: {} },
      "/api/v1/namespaces/default": { uid: "default", labels: {} },
      ...objects,
    })[path],
});
const look = (objects: Record<string, Identity>, state = nothing) =>
  inspectCluster(cluster(objects) as KubernetesApi, "The cluster", config, owner, state);
const refusal = async (objects: Record<string, Identity>, state = nothing): Promise<string | undefined> => {
  try {
    await look(objects, state);
    return undefined;
  } catch (error) {
    assert.ok(error instanceof LabError);
    assert.equal(error.exitCode, 2);
    return error.message;
  }
};
const app1 = "/apis/apps/v1/namespaces/default/deployments/app1";

test("builds the API path of each kind", () => {
  const paths = objectsOf({ ...config, ingress: "managed" }).map(pathOf);
  for (const path of [
    app1,
    "/api/v1/namespaces/dev",
    "/apis/networking.k8s.io/v1/namespaces/dev/networkpolicies/dev",
    "/apis/policy/v1/namespaces/default/poddisruptionbudgets/app1",
    "/apis/networking.k8s.io/v1/namespaces/dev/ingresses/app2",
    "/apis/networking.k8s.io/v1/ingressclasses/traefik",
    "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings/k3s-lab-traefik",
    "/api/v1/namespaces/traefik/serviceaccounts/traefik",
  ])
    assert.ok(paths.includes(path), `${path} in ${paths}`);
});

test("an object is ours if it has both labels or the state holds its UID", () => {
  const labels = { ...labelsOf(owner) };
  assert.equal(isOwn({ uid: "1", labels }, owner, nothing), true);
  for (const other of [
    {},
    { ...labels, "k3s-lab/stack": "apps-b" },
    { ...labels, "k3s-lab/lab": "lab-b" },
    { "k3s-lab/stack": "apps" },
    { "app.kubernetes.io/part-of": "k3s-lab", "app.kubernetes.io/instance": "apps" },
  ])
    assert.equal(isOwn({ uid: "1", labels: other as Record<string, string> }, owner, nothing), false);
  const older = { ...nothing, objects: [held("1")] };
  assert.equal(isOwn({ uid: "1", labels: {} }, owner, older), true);
  assert.equal(isOwn({ uid: "2", labels: {} }, owner, older), false, "made again by somebody else");
  // Of two stacks that hold one object, the first that marks it has it.
  assert.equal(isOwn({ uid: "1", labels: { ...labels, "k3s-lab/lab": "lab-b" } }, owner, older), false);
  // The checkout has lost its id: what it marked by the old one is its own still.
  const lost = { ...nothing, objects: [held("1", "lab-old")] };
  assert.equal(isOwn({ uid: "1", labels: { ...labels, "k3s-lab/lab": "lab-old" } }, owner, lost), true);
});

test("a cluster without conflicts is identified by kube-system's UID", async () => {
  assert.equal(await look({}), uid);
  assert.equal(
    await look({ [app1]: { uid: "1", labels: { ...labelsOf(owner) } } }),
    uid,
    "an interrupted run's",
  );
});

test("reports a conflict and its owner", async () => {
  assert.equal(
    await refusal({ [app1]: { uid: "1", labels: {} }, "/api/v1/namespaces/dev": { uid: "2", labels: {} } }),
    "The cluster already has Namespace dev, Deployment default/app1, which the lab did not create. Nothing was touched. Rename the namespaces or apps in Pulumi.apps.yaml, or delete what is in the way.",
  );
  const of = (lab: string, stack: string) =>
    refusal({ [app1]: { uid: "1", labels: { ...labelsOf({ lab, stack }) } } });
  assert.match(
    (await of("lab-a", "apps-b")) ?? "",
    /already has .*app1, of the stack apps-b\. .*take the other stack down/,
  );
  assert.match((await of("lab-b", "apps")) ?? "", /of the stack apps of another checkout/);
});

test("a host of somebody's Ingress is refused, and not checked once the stack has it", async () => {
  const ingress = (host: string | undefined, marks = {}, spec: object = {}, annotations = {}): Ingress => ({
    metadata: {
      ...{ uid: "1", name: "web", namespace: "shop", labels: marks, annotations },
      ...{ deletionTimestamp: undefined, creationTimestamp: undefined },
    },
    spec: { ingressClassName: "traefik", rules: [{ host }], ...spec },
    status: { loadBalancer: { ingress: [] } },
  });
  const asked = (...ingresses: readonly Ingress[]) =>
    inspectCluster(cluster({}, ingresses) as KubernetesApi, "The cluster", config, owner, nothing).then(
      () => "",
      (error: Error) => error.message,
    );
  assert.equal(
    await asked(ingress("app1.com")),
    "The cluster has the Ingress shop/web, which the lab did not create, and it routes requests for app1.com elsewhere. Nothing was touched. Choose another host in Pulumi.apps.yaml, or delete that Ingress first.",
  );
  const more = { ...config, apps: config.apps.map((one) => ({ ...one, aliases: ["www.app1.com"] })) };
  await assert.rejects(
    inspectCluster(
      cluster({}, [ingress("www.app1.com")]) as KubernetesApi,
      ...(["The cluster", more, owner, nothing] as const),
    ),
    /it routes requests for www\.app1\.com elsewhere/,
  );
  assert.match(await asked(ingress(undefined)), /requests for all hosts that no other has elsewhere/);
  assert.match(
    await asked(ingress("app1.com", labelsOf({ lab: "lab-b", stack: "apps" }))),
    /shop\/web, of the stack apps of another checkout, and/,
  );
  assert.match(
    await asked(ingress("app1.com", labelsOf({ ...owner, stack: "apps-b" }))),
    /of the stack apps-b, and .* or run `scripts\/lab up apps-b` first, if its file now has another host\.$/,
  );
  const noClass = { ingressClassName: undefined };
  assert.match(await asked(ingress("app1.com", {}, noClass)), /shop\/web/);
  for (const others of [
    [ingress("other.com")],
    [ingress("app1.com", {}, { ingressClassName: "nginx" })],
    [ingress("app1.com", {}, noClass, { "kubernetes.io/ingress.class": "nginx" })],
    [ingress("app1.com", labelsOf(owner)), ingress("app1.com")],
  ])
    assert.equal(await asked(...others), "");
  const unseen = {
    ...cluster({}),
    ingresses: async () => {
      throw new ApiError("answered 403", 403);
    },
  };
  assert.equal(await inspectCluster(unseen as unknown as KubernetesApi, "It", config, owner, nothing), uid);
});

test("an unmanaged namespace must exist", async () => {
  const elsewhere = { ...config, apps: config.apps.map((one) => ({ ...one, namespace: "none" })) };
  await assert.rejects(
    inspectCluster(cluster({}) as KubernetesApi, "The cluster", elsewhere, owner, nothing),
    /has no namespace "none" for the apps\. Add it to k3s-lab:namespaces, or create it/,
  );
});

test("finds what a deleted namespace takes along that is not the stack's, despite copied labels", async () => {
  const marks = labelsOf(owner);
  const listed = (name: string, uid: string, labels: Record<string, string> = {}, ...owners: string[]) => ({
    ...{ name, uid, labels },
    // Kubernetes' own controllers say that they are.
    ownerReferences: owners.map((uid) => ({ uid, controller: name.startsWith("app2-1") })),
  });
  const objects = {
    Deployment: [
      listed("app2", "d1", marks),
      listed("app2-copy", "d2", marks),
      listed("app3", "d3", marks),
      listed("theirs", "d4"),
    ],
    ReplicaSet: [listed("app2-1", "r1", {}, "d1"), listed("theirs-1", "r2", {}, "d4")],
    Pod: [listed("app2-1-x", "p1", {}, "r1")],
    Secret: [
      listed("of-theirs", "s1", {}, "d4"),
      listed("of-a-cluster", "s2", {}, "cluster-wide"),
      listed("of-ours", "s3", {}, "d1"),
    ],
  };
  const api = {
    namespacedKinds: async () =>
      Object.keys(objects).map((kind) => ({ kind, folder: (namespace: string) => `/${namespace}/${kind}` })),
    identities: async (path: string) => objects[path.split("/").at(-1) as keyof typeof objects],
    object: async () => undefined,
  };
  const place = { apiVersion: "apps/v1", kind: "Deployment", namespace: "dev" };
  const state: OwnState = {
    ...nothing,
    objects: [
      { apiVersion: "v1", kind: "Namespace", name: "dev", uid: "n1", lab: owner.lab },
      { ...place, name: "app2", uid: "d1", lab: owner.lab },
    ],
    // Killed while it was made.
    pending: [{ ...place, name: "app3" }],
  };
  assert.deepEqual(await othersIn(api as unknown as KubernetesApi, owner, state), [
    "Deployment dev/app2-copy",
    "Deployment dev/theirs",
    "Secret dev/of-a-cluster",
    "Secret dev/of-ours",
  ]);
});

test("keeps the field manager of an earlier version: another would conflict", () => {
  const ours = "k3s-lab/lab-a/apps";
  const of = (manager?: string) => {
    const type = "kubernetes:apps/v1:Deployment";
    const managers = new Map(manager === undefined ? [] : [[`${type} app1`, manager]]);
    const props = { metadata: { annotations: { theirs: "kept" } } };
    const transformed = labelling(owner, { ...nothing, managers })({
      type,
      name: "app1",
      props,
      opts: {},
      resource: {} as never,
    });
    return transformed?.props.metadata.annotations as unknown;
  };
  assert.deepEqual(of(), { theirs: "kept", "pulumi.com/patchFieldManager": ours });
  assert.deepEqual(of(ours), of());
  assert.deepEqual(of("pulumi-kubernetes-1a2b"), { theirs: "kept" });
});

test("deletes before replacing, unless the new object has another name and the old is in use", () => {
  const replaced = (opts: pulumi.CustomResourceOptions) => {
    const args = { type: "kubernetes:core/v1:ConfigMap", name: "app1", props: {}, resource: {} as never };
    const made = labelling(owner, nothing)({ ...args, opts });
    return (made?.opts as pulumi.CustomResourceOptions | undefined)?.deleteBeforeReplace;
  };
  assert.equal(replaced({}), true);
  assert.equal(replaced({ deleteBeforeReplace: false }), false);
});

test("leaves the number of pods to the autoscaler, except zero, which would disable it", () => {
  const left = (stopped: OwnState["stopped"]) => {
    const args = { type: "kubernetes:apps/v1:Deployment", name: "app1", props: {}, resource: {} as never };
    const opts = { ignoreChanges: ["spec.replicas", "spec.paused"] };
    const made = labelling(owner, { ...nothing, stopped })({ ...args, opts });
    return (made?.opts as pulumi.CustomResourceOptions | undefined)?.ignoreChanges;
  };
  assert.deepEqual(left(new Set()), ["spec.replicas", "spec.paused"]);
  assert.deepEqual(left(new Set(["kubernetes:apps/v1:Deployment app1"])), ["spec.paused"]);
  assert.deepEqual(left(new Set(["kubernetes:apps/v1:Deployment app2"])), left(new Set()));
});

test("after autoscaling, Pulumi takes the number of pods back by force, and later runs change nothing", () => {
  const forced = (autoscaled: readonly string[], annotations = {}) => {
    const args = { type: "kubernetes:apps/v1:Deployment", name: "app1", resource: {} as never, opts: {} };
    const state = { ...nothing, autoscaled: new Set(autoscaled) };
    const made = labelling(owner, state)({ ...args, props: { metadata: { annotations } } });
    return made?.props.metadata.annotations["pulumi.com/patchForce"] as unknown;
  };
  const once = ["kubernetes:apps/v1:Deployment app1"];
  assert.deepEqual([forced([]), forced(once)], [undefined, "true"]);
  // An autoscaler that still chooses keeps what it chose.
  assert.equal(forced(once, { "k3s-lab/autoscaled": "true" }), undefined);
});
