import assert from "node:assert/strict";
import { test } from "node:test";
import type { EngineEvent } from "@pulumi/pulumi/automation/index.js";
import { connect } from "../../stacks/lib/kubernetes.ts";
import { type FakeLab, healthyLab, serveApi } from "../verify/fake-lab.ts";
import { stopWhereStuck, whyStuck } from "./stuck-rollouts.ts";

const urn = "urn:pulumi:apps::k3s-lab::k3s-lab:apps:WebApp$kubernetes:apps/v1:Deployment::default-app2";
const type = "kubernetes:apps/v1:Deployment";
const inputs = { metadata: { name: "app2", namespace: "default" } };
const event = (kind: "resourcePreEvent" | "resOutputsEvent", op: string, of = { urn, type }): EngineEvent =>
  ({ [kind]: { metadata: { ...of, op, new: { inputs } } } }) as unknown as EngineEvent;

/** What comes of a watch that is told events, by a cluster that calls every rollout stuck. */
async function watched(...events: readonly EngineEvent[]): Promise<string | undefined> {
  let looks = 0;
  const { onEvent, stop, end } = stopWhereStuck(
    async ({ namespace, name }) => {
      looks += 1;
      // The cluster may be silent for a moment.
      if (looks === 1) throw new Error("no answer");
      return `${namespace}/${name} is stuck`;
    },
    { interval: 5, settles: 20 },
  );
  for (const one of events) onEvent(one);
  const over = AbortSignal.timeout(150);
  await new Promise<void>((done) => AbortSignal.any([stop, over]).addEventListener("abort", () => done()));
  await end();
  return (stop.reason as Error | undefined)?.message;
}

test("Pulumi is ended only while it waits for a Deployment that Kubernetes has given up", async () => {
  assert.equal(await watched(event("resourcePreEvent", "update")), "default/app2 is stuck");
  assert.equal(await watched(event("resourcePreEvent", "same")), undefined);
  assert.equal(
    await watched(event("resourcePreEvent", "update"), event("resOutputsEvent", "update")),
    undefined,
  );
  const service = { urn: "urn", type: "kubernetes:core/v1:Service" };
  assert.equal(await watched(event("resourcePreEvent", "create", service)), undefined);
});

/** What is said of app2, whose Deployment and pods are as given. */
async function said(
  deployment: object | readonly object[],
  pods: readonly object[],
  name = "app2",
): Promise<string | undefined> {
  const lab: FakeLab = healthyLab();
  lab.api["/apis/apps/v1/namespaces/default/deployments"] = { items: [deployment].flat() };
  lab.api["/api/v1/namespaces/default/pods"] = { items: [...pods] };
  lab.api["/api/v1/namespaces/default/events"] = {
    items: [
      {
        metadata: { name: "e" },
        involvedObject: { kind: "Pod", name: "app2-new-1" },
        ...{ type: "Warning", reason: "Unhealthy", message: "Readiness probe failed: statuscode: 503" },
      },
    ],
  };
  const server = await serveApi(lab);
  const api = connect({ server: server.url });
  try {
    return await whyStuck(api, "apps", { name, namespace: "default" });
  } finally {
    api.close();
    server.close();
  }
}

const exceeded = { type: "Progressing", status: "False", reason: "ProgressDeadlineExceeded" };
const deployment = (status: object, conditions: readonly object[] = [exceeded]) => ({
  metadata: { name: "app2", generation: 7 },
  spec: { replicas: 3, progressDeadlineSeconds: 120 },
  status: { observedGeneration: 7, availableReplicas: 3, conditions, ...status },
});
const pod = (name: string, ready: boolean, owner = "app2-5d9f") => ({
  metadata: { name, ownerReferences: [{ kind: "ReplicaSet", name: owner }] },
  spec: { containers: [] },
  status: {
    phase: "Running",
    conditions: [{ type: "Ready", status: ready ? "True" : "False" }],
    containerStatuses: [{ state: {} }],
  },
});

test("a failed rollout is reported with its pods' reasons and what still serves", async () => {
  const pods = [
    pod("app2-old-1", true, "app2-7c8b"),
    pod("app2-new-1", false),
    pod("other", false, "app3-1"),
  ];
  assert.equal(
    await said(deployment({}), pods),
    `The rollout of default/app2 has failed: no progress for 120 s (Kubernetes: ProgressDeadlineExceeded).
  app2-new-1 is not ready (Unhealthy: Readiness probe failed: statuscode: 503)
3 of its pods still serve. Run \`scripts/lab rollback app2\` to return to the previous version, or fix Pulumi.apps.yaml and run \`scripts/lab up apps\`.`,
  );
});

test("a failed canary is reported while the app itself serves", async () => {
  const canary = deployment({ availableReplicas: 0 });
  const [app, name] = ["app2", "app2-canary"];
  const labels = { "app.kubernetes.io/name": app };
  const both = [
    { ...canary, metadata: { ...canary.metadata, name, labels } },
    deployment({ availableReplicas: 3 }, []),
  ];
  const words = await said(both, [pod("app2-canary-1", false, "app2-canary-7f")], name);
  assert.match(
    words ?? "",
    /default\/app2-canary has failed.*\n {2}app2-canary-1 is not ready\n3 of its pods/,
  );
  assert.match(words ?? "", new RegExp(`lab rollback ${app}\``));
});

test("an app whose own name ends like a canary's is reported by that name", async () => {
  const name = "bird-canary";
  const labels = { "app.kubernetes.io/name": name };
  const own = deployment({});
  const both = [
    { ...own, metadata: { ...own.metadata, name, labels } },
    { ...deployment({ availableReplicas: 5 }, []), metadata: { name: "bird", generation: 1 } },
  ];
  assert.match((await said(both, [], name)) ?? "", /\n3 of its pods.*lab rollback bird-canary`/);
});

test("a rollout continues if it has time left, Kubernetes has not observed it yet, or nothing served before", async () => {
  assert.equal(await said(deployment({}, []), []), undefined);
  assert.equal(await said(deployment({ observedGeneration: 6 }), []), undefined);
  assert.equal(await said(deployment({ availableReplicas: 0 }), []), undefined);
});
