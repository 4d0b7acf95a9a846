import assert from "node:assert/strict";
import { test } from "node:test";
import { refusal } from "../../scripts/backup/fake-backup.ts";
import { parseConfig } from "../model/config.ts";
import { isReplica, refuseReplicaForWrites } from "./primary.ts";

const config = (database: object) =>
  parseConfig("my-app", { cluster: { stack: "cluster" }, database }, "FILE");

/** What the state has of a database. */
const made = (replicas: number, primary: number, namespace = "my-app") => {
  const metadata = { name: "db", namespace };
  const selector = { "statefulset.kubernetes.io/pod-name": `db-${primary}` };
  return [
    {
      urn: "set",
      type: "kubernetes:apps/v1:StatefulSet",
      inputs: { metadata, spec: { replicas, selector: { matchLabels: {} } } },
    },
    {
      urn: "read",
      type: "kubernetes:core/v1:Service",
      inputs: { metadata: { name: "db-read", namespace }, spec: { selector: {} } },
    },
    { urn: "service", type: "kubernetes:core/v1:Service", inputs: { metadata, spec: { selector } } },
  ];
};
const never = () => assert.fail("it was asked");
const says = (follows: boolean) => async () => follows;

test("an unchanged database is not asked, and a new one starts in db-0", async () => {
  await refuseReplicaForWrites("my-app", config({ replicas: 2, primary: 1 }), made(2, 1), never);
  await refuseReplicaForWrites("my-app", config({ replicas: 1 }), made(1, 0), never);
  await refuseReplicaForWrites("my-app", config({ replicas: 2 }), [], never);
  for (const resources of [[], made(2, 1, "other")])
    assert.match(
      await refusal(refuseReplicaForWrites("my-app", config({ primary: 1 }), resources, never)),
      /^2 Pulumi\.my-app\.yaml: k3s-lab:database: a new database begins in db-0\. Set primary: 0\./,
    );
});

test("the primary can be made the only pod, and after a promotion the Services follow", async () => {
  await refuseReplicaForWrites("my-app", config({ replicas: 1 }), made(2, 0), says(false));
  await refuseReplicaForWrites("my-app", config({ replicas: 2, primary: 1 }), made(2, 0), says(false));
});

test("a replica gets no writes, and the primary is not removed", async () => {
  const back = await refusal(
    refuseReplicaForWrites("my-app", config({ replicas: 1, primary: 0 }), made(2, 1), says(true)),
  );
  assert.match(back, /^2 .*db-0 replicates db-1, which takes writes: no write would succeed/);
  assert.match(
    back,
    /Nothing was touched\. Set it back to replicas: 2, primary: 1, or stop db-1 with `kubectl /,
  );
  assert.match(
    back,
    /scale statefulset db --replicas=1`, then promote db-0 first: `.* exec db-0 -- postgres-/,
  );
  assert.match(
    await refusal(refuseReplicaForWrites("my-app", config({ primary: 1 }), made(2, 0), says(true))),
    /db-1 replicates db-0, .*primary: 0, or, if db-0 is lost for good, promote db-1 first: .*exec db-1/,
  );
});

test("a pod that does not report its role may be a replica", async () => {
  const silent = async () => Promise.reject(new Error("the pod is not running"));
  assert.match(
    await refusal(refuseReplicaForWrites("my-app", config({ replicas: 1 }), made(2, 0), silent)),
    /^2 .*db-0 did not say whether it takes writes: the pod is not running\. .*back to replicas: 2, primary: 0/,
  );
});

test("a starting pod is asked again until the deadline", async () => {
  const answers = [
    ["", "error: container not found"],
    ["t\n", ""],
  ] as const;
  let asked = 0;
  const run = async () => {
    const [stdout = "", stderr = ""] = answers[asked++] ?? [];
    return { exitCode: 0, stdout, stderr };
  };
  assert.equal(await isReplica(run, new AbortController().signal), true);
  const time = new AbortController();
  const silent = async () => {
    time.abort();
    return { exitCode: 1, stdout: "", stderr: "Defaulted container\nerror: container not found" };
  };
  await assert.rejects(isReplica(silent, time.signal), { message: "error: container not found" });
});
