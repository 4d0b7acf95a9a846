import assert from "node:assert/strict";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before } from "node:test";
import { stringify } from "yaml";
import { clusterUid, type FakeLab, healthyLab, serveApi } from "../../scripts/verify/fake-lab.ts";
import type { LabError } from "../../stacks/lib/errors.ts";
import { connect } from "../../stacks/lib/kubernetes.ts";
import { type AppsConfig, parseConfig, resourceName } from "../../stacks/model/config.ts";
import { chooseContext, kubeconfigOf } from "../../stacks/model/kubeconfig.ts";
import { externalCluster } from "../../stacks/observe/external-cluster.ts";
import { observeImages } from "../../stacks/observe/images.ts";
import type { OwnState } from "../../stacks/observe/own-state.ts";
import { inspectCluster, labelsOf, othersIn } from "../../stacks/observe/ownership.ts";
import { fault, refused } from "./table.ts";

// A cluster of somebody else's: an API server on loopback that counts what it is asked to change, which must be nothing.

let directory = "";
before(async () => {
  directory = await mkdtemp(join(tmpdir(), "k3s-lab-faults-apps-"));
});
after(() => rm(directory, { recursive: true }));

const owner = { lab: "lab-a", stack: "apps-kind" };
const file = "Pulumi.apps-kind.yaml";
const values = {
  namespaces: [{ name: "dev", isolated: false }],
  apps: [
    { name: "app1", namespace: "dev" },
    { name: "app2", host: "app2.com" },
  ],
};
const config = (more: object = {}) =>
  parseConfig("apps", { cluster: { kubeconfig: "k", context: "kind" }, ...values, ...more }, file);

/** What the lab says to a cluster that holds these objects beside what it has anyway. */
async function look(
  damage: (api: FakeLab["api"]) => void,
  more: object = {},
  kubeconfig: { readonly cluster?: object; readonly user?: object } = {},
): Promise<(Error & { readonly exitCode?: number }) | undefined> {
  const lab = healthyLab();
  lab.api["/apis/networking.k8s.io/v1/ingressclasses"] = { items: [{ metadata: { name: "traefik" } }] };
  damage(lab.api);
  const api = await serveApi(lab);
  const path = join(directory, "kubeconfig");
  const entry = { server: api.url, ...kubeconfig.cluster };
  await writeFile(
    path,
    stringify({
      clusters: [{ name: "kind", cluster: entry }],
      users: [{ name: "kind", user: { token: "t", ...kubeconfig.user } }],
      contexts: [
        { name: "kind", context: { cluster: "kind", user: "kind" } },
        { name: "half", context: { cluster: "gone" } },
      ],
    }),
  );
  try {
    await externalCluster({ kubeconfig: path, context: "kind" }, config(more), owner);
    return undefined;
  } catch (error) {
    return error as LabError;
  } finally {
    api.close();
  }
}

/** Objects by their paths, with the labels of whoever made them. */
const taken: readonly (readonly [string, string, Record<string, string>, RegExp])[] = [
  [
    "C6: a namespace of the user's own",
    "/api/v1/namespaces/dev",
    {},
    /already has Namespace dev, which the lab did not create/,
  ],
  [
    "C6: an app of the user's own",
    "/apis/apps/v1/namespaces/default/deployments/app2",
    { app: "app2" },
    /already has Deployment default\/app2, which the lab did not create/,
  ],
  [
    "C6: an Ingress of the user's own",
    "/apis/networking.k8s.io/v1/namespaces/default/ingresses/app2",
    {},
    /already has Ingress default\/app2,/,
  ],
  [
    "C6: a PodDisruptionBudget of the user's own",
    "/apis/policy/v1/namespaces/default/poddisruptionbudgets/app2",
    {},
    /already has PodDisruptionBudget default\/app2,/,
  ],
  [
    "C6: labels that only look like the lab's",
    "/api/v1/namespaces/dev",
    { "app.kubernetes.io/part-of": "k3s-lab" },
    /which the lab did not create/,
  ],
  [
    "C13: a second apps stack of this checkout",
    "/apis/apps/v1/namespaces/default/deployments/app2",
    labelsOf({ ...owner, stack: "apps" }),
    /of the stack apps\. Nothing was touched/,
  ],
  [
    "C13: the same stack of another checkout",
    "/apis/apps/v1/namespaces/default/deployments/app2",
    labelsOf({ ...owner, lab: "lab-b" }),
    /of the stack apps-kind of another checkout/,
  ],
];
for (const [name, path, labels, sentence] of taken)
  refused(
    name,
    () =>
      look((api) => {
        api[path] = { metadata: { name: "taken", uid: "users", labels } };
      }),
    sentence,
  );
refused(
  "C6: an app called kubernetes in the namespace default",
  () =>
    look(
      (api) => {
        api["/api/v1/namespaces/default/services/kubernetes"] = {
          metadata: { name: "kubernetes", uid: "1" },
        };
      },
      { apps: [{ name: "kubernetes" }] },
    ),
  /already has Service default\/kubernetes|apps\[0\]\.name: "kubernetes"/,
);
refused(
  "a namespace that does not exist",
  () => look(() => {}, { namespace: "nowhere", apps: [{ name: "app3" }] }),
  /has no namespace "nowhere" for the apps/,
);
refused(
  "an Ingress controller that is not there",
  () => look(() => {}, { ingress: "haproxy" }),
  /no IngressClass "haproxy"/,
);
for (const [name, more, sentence] of [
  ["H16: a quota of as many pods as the apps have", { quota: { pods: 1 } }, /quota\.pods: 1 .*at least 2/],
  ["H16: a quota of memory that a rollout does not fit in", { quota: { memory: "200Mi" } }, /at least 256Mi/],
  ["H16: a quota of CPU that a rollout does not fit in", { quota: { cpu: "40m" } }, /at least 50m/],
] as const)
  refused(name, () => look(() => {}, { namespaces: [{ name: "dev", isolated: false, ...more }] }), sentence);
refused(
  "nginx and isolated namespaces, without the place of its pods",
  () => look(() => {}, { ingress: "nginx", namespaces: [{ name: "dev" }] }),
  /ingressNamespace/,
);
refused(
  "a kubeconfig through a proxy that the lab does not know",
  () => look(() => {}, {}, { cluster: { "proxy-url": "socks5://127.0.0.1:1080" } }),
  /uses a socks5 proxy/,
);
/** No credential is needed elsewhere. */
const secure = { server: "https://127.0.0.1:1" };
refused(
  "a kubeconfig whose file of a token is not there",
  () => look(() => {}, {}, { cluster: secure, user: { tokenFile: "none" } }),
  /there is no .*none/,
);
refused(
  "a kubeconfig whose plugin gives no credential",
  () =>
    look(
      () => {},
      {},
      {
        cluster: secure,
        user: {
          token: "",
          exec: { apiVersion: "client.authentication.k8s.io/v1beta1", command: "k3s-lab-no-such-plugin" },
        },
      },
    ),
  /plugin k3s-lab-no-such-plugin gave no credential/,
);

const nothing: OwnState = {
  objects: [],
  pending: [],
  managers: new Map(),
  environments: new Map(),
  stopped: new Set(),
  autoscaled: new Set(),
};

fault("C6: a run was interrupted while it created the apps", async () => {
  const error = await look((api) => {
    for (const path of ["/api/v1/namespaces/dev", "/apis/apps/v1/namespaces/dev/deployments/app1"])
      api[path] = { metadata: { name: "made", uid: "1", labels: labelsOf(owner) } };
  });
  assert.equal(error, undefined);
  return { happened: "what has this stack's labels is its own: the next run continues", lost: "nothing" };
});

fault("C6: `lab down` of apps with a user's ConfigMap in the stack's namespace", async () => {
  const lab = healthyLab();
  const list = (path: string, ...items: object[]) => {
    lab.api[path] = { items: items.map((metadata) => ({ metadata })) };
  };
  for (const kind of ["secrets", "events"]) list(`/api/v1/namespaces/dev/${kind}`);
  lab.api["/apis/example.org/v2/namespaces/dev/widgets"] = { items: null };
  list(
    "/api/v1/namespaces/dev/configmaps",
    { name: "kube-root-ca.crt", uid: "1" },
    { name: "notes", uid: "2" },
  );
  list("/apis/apps/v1/namespaces/dev/deployments", { name: "app1", uid: "3", labels: labelsOf(owner) });
  const pod = { name: "app1-x", uid: "4", ownerReferences: [{ uid: "3", controller: true }] };
  list("/api/v1/namespaces/dev/pods", pod, { name: "debug", uid: "5" });
  lab.api["/api/v1/namespaces/dev"] = { metadata: { name: "dev", uid: "old" } };
  const api = await serveApi(lab);
  const connection = connect({ server: api.url });
  const app = { apiVersion: "apps/v1", kind: "Deployment", namespace: "dev", name: "app1", uid: "3" };
  const look = (uid: string) => {
    const namespace = { apiVersion: "v1", kind: "Namespace", name: "dev", uid };
    return othersIn(connection, owner, { ...nothing, objects: [namespace, app] });
  };
  const others = await look("old");
  const remade = await look("older");
  connection.close();
  list("/apis/example.org/v2/namespaces/dev/widgets", { name: "mine", uid: "6" });
  const later = connect({ server: api.url });
  const withWidget = await othersIn(later, owner, {
    ...nothing,
    objects: [{ apiVersion: "v1", kind: "Namespace", name: "dev", uid: "old" }],
  });
  later.close();
  api.close();
  assert.deepEqual(new Set(others), new Set(["ConfigMap dev/notes", "Pod dev/debug"]));
  assert.ok(withWidget.includes("Widget dev/mine"), "a custom resource");
  assert.deepEqual(remade, ["Namespace dev", ...others], "a namespace that somebody made again");
  return { happened: "`lab down` names them: exit 3, or --replace", lost: "nothing" };
});

fault("C6: a namespace of the stack was deleted and recreated by a user", async () => {
  const before: OwnState = {
    ...nothing,
    objects: [{ apiVersion: "v1", kind: "Namespace", name: "dev", uid: "old" }],
  };
  const lab = healthyLab();
  const api = await serveApi(lab);
  const inspectNow = async (wanted: AppsConfig, uid: string) => {
    lab.api["/api/v1/namespaces/dev"] = { metadata: { name: "dev", uid } };
    const connection = connect({ server: api.url });
    try {
      return await inspectCluster(connection, "The cluster", wanted, owner, before);
    } catch (error) {
      return (error as Error).message;
    } finally {
      connection.close();
    }
  };
  // It is in the way of what the file asks for; and Pulumi, which deletes by name, would delete it where the file does not
  // name it any more.
  const wanting = await inspectNow(config(), "new");
  const inspectedOld = await inspectNow(config(), "old");
  api.close();
  assert.match(wanting, /The cluster already has Namespace dev, which the lab did not create/);
  assert.equal(inspectedOld, clusterUid);
  return { happened: "the state knows another UID: refused", lost: "nothing" };
});

fault("C6: of two namespaces removed from the file, a user recreated one", async () => {
  const held = (name: string, uid: string) => ({
    apiVersion: "v1",
    kind: "Namespace",
    name,
    uid,
  });
  const lab = healthyLab();
  lab.api["/api/v1/namespaces/one"] = { metadata: { name: "one", uid: "1" } };
  lab.api["/api/v1/namespaces/two"] = { metadata: { name: "two", uid: "new" } };
  const api = await serveApi(lab);
  const connection = connect({ server: api.url });
  const state = { ...nothing, objects: [held("one", "1"), held("two", "2")] };
  const leaving = inspectCluster(
    connection,
    "The cluster",
    config({ namespaces: [], apps: [{ name: "app3" }] }),
    owner,
    state,
  );
  await assert.rejects(leaving, /The cluster already has Namespace two, which the lab did not create/);
  connection.close();
  api.close();
  return { happened: "Pulumi would delete it by its name: refused", lost: "nothing" };
});

fault("C7: another default namespace", async () => {
  const app = { name: "app1", namespace: "dev" };
  const names = ["default", "dev"].map((namespace) => {
    const [one] = config({ namespace, apps: [app] }).apps;
    return one && resourceName(one);
  });
  return {
    happened: `the app is ${names.join(" and ")} to Pulumi`,
    lost: names[0] === names[1] ? "nothing" : "the app",
  };
});

fault("H4: the same stack name on another cluster", async () => {
  const another = "6f1c2f3e-0d1e-4f5a-9b6c-7d8e9f0a1b2c";
  const lab = healthyLab();
  lab.api["/api/v1/namespaces/kube-system"] = { metadata: { name: "kube-system", uid: another } };
  const api = await serveApi(lab);
  const connection = connect({ server: api.url });
  const deployed = { apiVersion: "v1", kind: "Namespace", name: "dev", uid: "on the old one" };
  const state = { ...nothing, objects: [deployed] };
  const identity = await inspectCluster(connection, "The cluster", config(), owner, state);
  connection.close();
  api.close();
  assert.equal(identity, another);
  return { happened: "known by the UID of kube-system: everything is deployed again", lost: "nothing" };
});

fault("H6: the app's image was removed from a node", async () => {
  const node = {
    name: "server",
    role: "server",
    address: "ssh://server.cluster",
  } as const;
  const environments = new Map([["web-server", { IMAGE: "web:1", LOADED: "then" }]]);
  const look = (has: boolean | undefined) =>
    observeImages("web", "web:1", [node], { ...nothing, environments }, "now", async () => has);
  assert.equal((await look(true))[0]?.loaded, "then");
  assert.equal((await look(undefined))[0]?.loaded, "then", "a node that does not say has not lost it");
  assert.equal((await look(false))[0]?.loaded, "now");
  return { happened: "preview shows an update, which loads it again", lost: "nothing" };
});

fault("other contexts of a kubeconfig change, and one of them is broken", async () => {
  const text = (more: object[], current: string) =>
    stringify({
      clusters: [{ name: "a", cluster: { server: "https://a:6443", extensions: more } }],
      users: [{ name: "a", user: { token: "secret-a" } }, ...more],
      contexts: [{ name: "a", context: { cluster: "a", user: "a" } }, ...more],
      "current-context": current,
    });
  const take = (content: string) => kubeconfigOf(chooseContext(content, "/k", "a"));
  const before = take(text([], "a"));
  assert.equal(
    take(text([{ name: "b", user: { token: "secret-b" }, context: { cluster: "gone" } }], "b")),
    before,
  );
  return { happened: "only the chosen context's credentials are used; no change", lost: "nothing" };
});
