import assert from "node:assert/strict";
import { test } from "node:test";
import { type Made, mockEngine, resourcesOf } from "./fake-engine.ts";

await mockEngine();
const { Database } = await import("./database.ts");

const labels = { "app.kubernetes.io/name": "db", "app.kubernetes.io/part-of": "k3s-lab" };
const metadata = { name: "db", namespace: "my-app", labels };
const args = {
  image: "postgres:15",
  namespace: "my-app",
  owner: "guestbook",
  password: "p",
  replicationPassword: "r",
};

const make = (more: object = {}) => resourcesOf(() => new Database("db", { ...args, ...more }));
const one = (made: readonly Made[], kind: string, name = "db"): Made["inputs"] => {
  const found = made.find((it) => it.type.endsWith(`:${kind}`) && it.name === name);
  assert.ok(found, `${kind} ${name}`);
  return found.inputs;
};

const service = (name: string, spec: object) => ({
  apiVersion: "v1",
  kind: "Service",
  metadata: { ...metadata, name, annotations: { "pulumi.com/skipAwait": "true" } },
  spec: { ports: [{ name: "postgres", port: 5432, targetPort: "postgres" }], ...spec },
});
const toPod = (name: string) => ({ selector: { ...labels, "statefulset.kubernetes.io/pod-name": name } });

test("writes go to pod 0 and reads to the replica; each pod has a name before it is ready", async () => {
  const made = await make({ replica: true });
  assert.deepEqual(one(made, "Service"), service("db", toPod("db-0")));
  assert.deepEqual(one(made, "Service", "db-read"), service("db-read", toPod("db-1")));
  assert.deepEqual(
    one(made, "Service", "db-pods"),
    service("db-pods", { clusterIP: "None", publishNotReadyAddresses: true, selector: labels }),
  );
});

test("without a replica, pod 0 serves the reads too", async () => {
  const made = await make();
  assert.deepEqual(one(made, "Service", "db-read"), service("db-read", toPod("db-0")));
  assert.equal((one(made, "StatefulSet").spec as { replicas: number }).replicas, 1);
});

test("after a promotion, writes go to pod 1 and reads to pod 0, and no pod is recreated", async () => {
  const [before, after] = [await make({ replica: true }), await make({ replica: true, primary: 1 })];
  assert.deepEqual(one(after, "Service"), service("db", toPod("db-1")));
  assert.deepEqual(one(after, "Service", "db-read"), service("db-read", toPod("db-0")));
  assert.deepEqual(one(after, "StatefulSet"), one(before, "StatefulSet"));
});

test("the pods keep their data on their own claims and run without privileges", async () => {
  const made = await make({ replica: true, size: "2Gi", storageClass: "local-path" });
  const probe = (part: string, periodSeconds: number, failureThreshold: number) => ({
    exec: { command: ["postgres-entry", part] },
    periodSeconds,
    failureThreshold,
    timeoutSeconds: 10,
  });
  assert.deepEqual(one(made, "StatefulSet"), {
    apiVersion: "apps/v1",
    kind: "StatefulSet",
    metadata,
    spec: {
      replicas: 2,
      serviceName: "db-pods",
      revisionHistoryLimit: 5,
      selector: { matchLabels: labels },
      template: {
        metadata: { labels },
        spec: {
          automountServiceAccountToken: false,
          enableServiceLinks: false,
          securityContext: {
            runAsNonRoot: true,
            runAsUser: 65532,
            runAsGroup: 65532,
            fsGroup: 65532,
            seccompProfile: { type: "RuntimeDefault" },
          },
          terminationGracePeriodSeconds: 60,
          topologySpreadConstraints: [
            {
              maxSkew: 1,
              topologyKey: "kubernetes.io/hostname",
              whenUnsatisfiable: "ScheduleAnyway",
              labelSelector: { matchLabels: labels },
            },
          ],
          affinity: {
            podAntiAffinity: {
              preferredDuringSchedulingIgnoredDuringExecution: [
                {
                  weight: 100,
                  podAffinityTerm: {
                    topologyKey: "kubernetes.io/hostname",
                    labelSelector: { matchLabels: labels },
                  },
                },
              ],
            },
          },
          priorityClassName: "db.my-app",
          containers: [
            {
              name: "postgres",
              image: "postgres:15",
              imagePullPolicy: "IfNotPresent",
              args: ["server"],
              env: [
                { name: "DATABASE_NAME", value: "guestbook" },
                { name: "DATABASE_USER", value: "guestbook" },
                { name: "PRIMARY_HOST", value: "db-0.db-pods" },
              ],
              ports: [{ name: "postgres", containerPort: 5432 }],
              startupProbe: probe("alive", 1, 600),
              readinessProbe: probe("ready", 2, 5),
              livenessProbe: probe("alive", 10, 6),
              resources: { requests: { cpu: "50m", memory: "64Mi" }, limits: { memory: "256Mi" } },
              securityContext: {
                allowPrivilegeEscalation: false,
                readOnlyRootFilesystem: true,
                capabilities: { drop: ["ALL"] },
              },
              volumeMounts: [
                { name: "data", mountPath: "/var/lib/postgresql" },
                { name: "run", mountPath: "/run/postgresql" },
                { name: "tmp", mountPath: "/tmp" },
                { name: "secret", mountPath: "/etc/postgres-secret", readOnly: true },
                { name: "made", mountPath: "/etc/postgres-made", readOnly: true },
              ],
            },
          ],
          volumes: [
            { name: "run", emptyDir: {} },
            { name: "tmp", emptyDir: {} },
            { name: "secret", secret: { secretName: "db", defaultMode: 0o440 } },
            { name: "made", configMap: { name: "db-made", optional: true } },
          ],
        },
      },
      volumeClaimTemplates: [
        {
          metadata: { name: "data", labels },
          spec: {
            accessModes: ["ReadWriteOnce"],
            resources: { requests: { storage: "2Gi" } },
            storageClassName: "local-path",
          },
        },
      ],
    },
  });
  assert.deepEqual(one(made, "PodDisruptionBudget"), {
    apiVersion: "policy/v1",
    kind: "PodDisruptionBudget",
    metadata,
    spec: { maxUnavailable: 1, selector: { matchLabels: labels } },
  });
});

test("the database's creation is recorded outside its volumes", async () => {
  const made = await make({ replica: true });
  const note = made.find(({ name }) => name === "db-made");
  assert.deepEqual(note?.inputs, {
    apiVersion: "v1",
    kind: "ConfigMap",
    metadata: { ...metadata, name: "db-made" },
    data: { replicas: "2" },
  });
});

test("its passwords are Pulumi secrets", async () => {
  const { value } = one(await make(), "Secret").stringData as { value?: unknown };
  assert.deepEqual(value, { password: "p", "replication-password": "r" });
});
