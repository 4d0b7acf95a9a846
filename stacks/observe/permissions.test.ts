import assert from "node:assert/strict";
import { type TestContext, test } from "node:test";
import { healthyLab, serveApi } from "../../scripts/verify/fake-lab.ts";
import { connect } from "../lib/kubernetes.ts";
import { parseConfig } from "../model/config.ts";
import type { OwnState } from "./own-state.ts";
import { kindOf, objectsOf, pathOf } from "./ownership.ts";
import { refuseForbidden } from "./permissions.ts";

const config = parseConfig(
  "my-app",
  {
    cluster: { kubeconfig: "~/.kube/config", context: "kind" },
    ingress: "managed",
    images: { app: "a:1", database: "b:1" },
  },
  "FILE",
);
const roles = "clusterroles.rbac.authorization.k8s.io";

/** The guest book on somebody's cluster, with the lab's own Traefik. */
async function guestBook(t: TestContext, objects: OwnState["objects"] = []) {
  const lab = healthyLab();
  const { url, close } = await serveApi(lab);
  t.after(close);
  return {
    exists: (path: string, uid = path) => {
      lab.api[path] = { metadata: { name: path.split("/").at(-1), uid } };
    },
    /** @returns what the user is told to lack; nothing if accepted. */
    lacks: async (...forbidden: readonly string[]) => {
      Object.assign(lab, { forbidden });
      const api = connect({ server: url });
      const refused = await refuseForbidden(api, "Theirs", config, "my-app", { objects }).then(
        () => undefined,
        (error: Error) => error.message,
      );
      api.close();
      return (
        refused && /^Theirs cannot run the stack my-app: its user may not (.*)\. Nothing/.exec(refused)?.[1]
      );
    },
  };
}

test("a user's missing permissions are named; in a new namespace the creator may get permissions automatically", async (t) => {
  const { lacks, exists } = await guestBook(t);
  assert.equal(await lacks("create secrets in my-app"), undefined);
  exists("/api/v1/namespaces/my-app");
  assert.equal(await lacks("create secrets in my-app"), "create secrets in my-app");
  const kind = "priorityclasses.scheduling.k8s.io";
  assert.equal(await lacks(`create ${kind}`, `patch ${kind}`), `create ${kind}, patch ${kind}`);
});

test("a user needs no permission that this run does not use, nor that to query permissions", async (t) => {
  const { lacks, exists } = await guestBook(t);
  for (const place of objectsOf(config)) exists(pathOf(place));
  const kinds = objectsOf(config).map((place) => {
    const { group, resource, namespace } = kindOf(place);
    return `${resource}${group && `.${group}`}${namespace === undefined ? "" : ` in ${namespace}`}`;
  });
  assert.equal(await lacks(...kinds.map((kind) => `create ${kind}`)), undefined);
  assert.equal(await lacks(...kinds.map((kind) => `patch ${kind} *`)), undefined, "by name");
  assert.equal(await lacks(`escalate ${roles}`, "list secrets"), undefined);
  assert.equal(await lacks("create selfsubjectaccessreviews", "patch namespaces"), undefined);
  assert.equal(await lacks("patch namespaces"), "patch namespaces");
});

test("what leaves the stack must be deletable, unless it now belongs to another", async (t) => {
  const path = "/api/v1/namespaces/dev/configmaps/old";
  const old = { apiVersion: "v1", kind: "ConfigMap", namespace: "dev", name: "old", uid: "1" };
  const { lacks, exists } = await guestBook(t, [old]);
  exists("/api/v1/namespaces/dev");
  assert.equal(await lacks("delete configmaps in dev"), undefined, "it is gone");
  exists(path, "2");
  assert.equal(await lacks("delete configmaps in dev"), undefined);
  exists(path, "1");
  assert.equal(await lacks("delete configmaps in dev"), "delete configmaps in dev");
});

test("a user who lacks permissions of the lab's own Traefik needs the permission to grant them", async (t) => {
  const { lacks, exists } = await guestBook(t);
  assert.equal(await lacks(`escalate ${roles}`, `bind ${roles}`), undefined, "has all of it");
  const given = ["list secrets", "update ingresses/status.networking.k8s.io"];
  assert.equal(await lacks(...given), undefined, "may give it");
  assert.equal(
    await lacks(...given, `escalate ${roles}`),
    `escalate ${roles}, so as to give the lab's own Traefik what this user lacks (${given.join(", ")})`,
  );
  exists(`/apis/rbac.authorization.k8s.io/v1/clusterroles/k3s-lab-traefik`);
  assert.equal(await lacks(...given, `escalate ${roles}`), undefined);
  assert.match((await lacks(...given, `bind ${roles}`)) ?? "", /^bind clusterroles/);
});
