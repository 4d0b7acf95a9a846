import assert from "node:assert/strict";
import { test } from "node:test";
import { connect } from "../../stacks/lib/kubernetes.ts";
import { healthyLab, serveApi } from "../verify/fake-lab.ts";
import { historyOf, revisionToRestore, tableOf } from "./history.ts";

const replicaSet = (owner: string, revision: string, version: string, replicas: number) => ({
  metadata: {
    name: `${owner}-${revision}`,
    annotations: { "deployment.kubernetes.io/revision": revision },
    creationTimestamp: `2026-11-29T10:0${revision.slice(-1)}:00Z`,
    ownerReferences: [{ kind: "Deployment", name: owner }],
  },
  spec: {
    replicas,
    template: { spec: { containers: [{ name: "log" }, { env: [{ name: "APP_VERSION", value: version }] }] } },
  },
});

/** The history of app2 as the API server has it. */
async function history(...items: object[]) {
  const lab = healthyLab();
  lab.api["/apis/apps/v1/namespaces/default/replicasets"] = { items };
  const server = await serveApi(lab);
  const api = connect({ server: server.url });
  try {
    return await historyOf(api, { name: "app2", namespace: "default" });
  } finally {
    api.close();
    server.close();
  }
}

const three = [
  replicaSet("app2", "9", "1.0.0", 0),
  replicaSet("app2", "11", "2.0.0", 1),
  replicaSet("app2", "10", "1.1.0", 3),
  replicaSet("app20", "12", "7.0.0", 1),
];

test("lists the app's own ReplicaSets, newest first", async () => {
  assert.equal(
    tableOf(await history(...three)),
    `  REVISION  VERSION  CREATED                  PODS
  11        2.0.0    2026-11-29 10:01:00 UTC  1
  10        1.1.0    2026-11-29 10:00:00 UTC  3
  9         1.0.0    2026-11-29 10:09:00 UTC  0`,
  );
});

test("restores the last revision with another version, or the given one", async () => {
  const all = await history(...three);
  const restored = (version: string, wanted?: number) =>
    revisionToRestore(all, { name: "app2", version }, wanted).revision;
  assert.equal(restored("2.0.0"), 10);
  assert.equal(restored("1.1.0"), 9);
  assert.equal(restored("2.0.0", 9), 9);
  // Rolled back by kubectl, which the stack file does not know.
  assert.equal(restored("1.0.0", 11), 11);
});

test("refuses an unknown or current revision and shows the history", async () => {
  const all = await history(...three);
  const cases = [
    [all, "2.0.0", 8, /^app2: there is no revision 8\.\n {2}REVISION .*\n {2}11 /],
    [
      all,
      "1.1.0",
      10,
      /^app2: revision 10 has the same version as the stack file, 1\.1\.0: nothing to roll back/,
    ],
    [all.slice(-1), "1.0.0", undefined, /^app2: no earlier revision has a version other than 1\.0\.0/],
    [[], "1.0.0", undefined, /^app2: its Deployment has no ReplicaSet/],
  ] as const;
  for (const [known, version, wanted, message] of cases)
    assert.throws(() => revisionToRestore(known, { name: "app2", version }, wanted), {
      exitCode: 2,
      message,
    });
});
