import assert from "node:assert/strict";
import { type TestContext, test } from "node:test";
import { connect, type Pod } from "../../stacks/lib/kubernetes.ts";
import { isOfAddOn } from "../verify/cluster.ts";
import { healthyLab, serveApi } from "../verify/fake-lab.ts";
import { findLate, isPodOf } from "./late-pods.ts";

const ownedBy = (kind: string, name: string) => [{ kind, name }];
const waits = (reason: string) => ({ state: { waiting: { reason } } });
const pod = (name: string, owner: object[] | undefined, containerStatuses: object[], more: object = {}) => ({
  metadata: { name, ...(owner ? { ownerReferences: owner } : {}), ...more },
  spec: { nodeName: "agent" },
  status: { phase: "Pending", conditions: [{ type: "Ready", status: "False" }], containerStatuses },
});
const svclb = ownedBy("DaemonSet", "svclb-traefik-1a2b");
const traefik = ownedBy("ReplicaSet", "traefik-5f6");

/** The names of the pods that are restarted. */
async function late(
  { t, hanging, isOwn = isOfAddOn }: { t: TestContext; hanging: boolean; isOwn?: (pod: Pod) => boolean },
  ...pods: object[]
): Promise<string[]> {
  const lab = healthyLab();
  lab.api["/api/v1/namespaces/kube-system/pods"] = { items: pods };
  lab.api["/api/v1/namespaces/kube-system/events"] = {
    items: [{ metadata: { name: "e" }, involvedObject: { kind: "Pod", name: "pulls" }, reason: "Pulling" }],
  };
  const server = await serveApi(lab);
  const api = connect({ server: server.url });
  t.after(() => {
    api.close();
    server.close();
  });
  return (await findLate(api, "kube-system", isOwn, hanging)).map(({ metadata }) => metadata.name);
}

test("pods that wait for their next attempt are restarted", async (t) => {
  const found = await late(
    { t, hanging: false },
    pod("crashes", svclb, [waits("CrashLoopBackOff"), waits("CrashLoopBackOff")]),
    pod("pulls-again", traefik, [waits("ImagePullBackOff")]),
    pod("pulls-first", traefik, [waits("ErrImagePull")]),
    pod("killed", traefik, [
      { ...waits("CrashLoopBackOff"), lastState: { terminated: { reason: "OOMKilled" } } },
    ]),
  );
  assert.deepEqual(found, ["crashes", "pulls-again", "pulls-first", "killed"]);
});

test("running, ending and foreign pods stay", async (t) => {
  const found = await late(
    { t, hanging: true },
    pod("half", svclb, [{ state: {} }, waits("CrashLoopBackOff")]),
    pod("goes", svclb, [waits("CrashLoopBackOff")], { deletionTimestamp: "2024-01-01T00:00:00Z" }),
    pod("somebody's", ownedBy("DaemonSet", "gpu-plugin"), [waits("CrashLoopBackOff")]),
    pod("coredns-like", ownedBy("ReplicaSet", "coredns-extra-5f6"), [waits("CrashLoopBackOff")]),
    pod("nowhere", traefik, []),
  );
  assert.deepEqual(found, []);
  const alone = pod("alone", undefined, [waits("ImagePullBackOff")]);
  assert.deepEqual(await late({ t, hanging: true, isOwn: () => true }, alone), []);
});

test("a pod that is being created is restarted only after a while, and not while its image is being pulled", async (t) => {
  const pods = ["hangs", "pulls"].map((name) => pod(name, svclb, [waits("ContainerCreating")]));
  assert.deepEqual(await late({ t, hanging: false }, ...pods), []);
  assert.deepEqual(await late({ t, hanging: true }, ...pods), ["hangs"]);
});

test("of the pods with an app's labels, which are copied with a Deployment, only those of its own Deployment are restarted", async (t) => {
  const labels = { "app.kubernetes.io/part-of": "k3s-lab", "app.kubernetes.io/name": "app1" };
  const [own, copied] = ["app1-5f6", "app1-mine-5f6"].map((name) =>
    pod(`of-${name}`, ownedBy("ReplicaSet", name), [waits("CrashLoopBackOff")], { labels }),
  );
  const isOwn = (one: Pod) => isPodOf(one, [{ name: "app1" }]);
  assert.deepEqual(await late({ t, hanging: false, isOwn }, own ?? {}, copied ?? {}), ["of-app1-5f6"]);
});
