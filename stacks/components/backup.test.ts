import assert from "node:assert/strict";
import { test } from "node:test";
import { mockEngine, resourcesOf } from "./fake-engine.ts";

await mockEngine();
const { Backup } = await import("./backup.ts");

const labels = { "app.kubernetes.io/name": "db-backup", "app.kubernetes.io/part-of": "k3s-lab" };
const metadata = { name: "db-backup", namespace: "my-app", labels };
const args = {
  image: "postgres:15",
  namespace: "my-app",
  host: "db",
  owner: "guestbook",
  secretName: "db",
  schedule: "17 3 * * *",
  keep: 7,
};

const make = async (more: object = {}) => {
  const made = await resourcesOf(() => new Backup("db-backup", { ...args, ...more }));
  const one = (kind: string) => made.find(({ type }) => type.endsWith(`:${kind}`))?.inputs;
  return { claim: one("PersistentVolumeClaim"), cronJob: one("CronJob") };
};

test("backups have their own volume, and nothing waits for it to be bound", async () => {
  const { claim } = await make({ size: "2Gi", storageClass: "local-path" });
  assert.deepEqual(claim, {
    apiVersion: "v1",
    kind: "PersistentVolumeClaim",
    metadata: { ...metadata, annotations: { "pulumi.com/skipAwait": "true" } },
    spec: {
      accessModes: ["ReadWriteOnce"],
      resources: { requests: { storage: "2Gi" } },
      storageClassName: "local-path",
    },
  });
});

test("one backup at a time, with a deadline, by an unprivileged pod that knows one password", async () => {
  const { cronJob } = await make();
  assert.deepEqual(cronJob, {
    apiVersion: "batch/v1",
    kind: "CronJob",
    metadata,
    spec: {
      schedule: "17 3 * * *",
      suspend: false,
      concurrencyPolicy: "Forbid",
      startingDeadlineSeconds: 3600,
      successfulJobsHistoryLimit: 1,
      failedJobsHistoryLimit: 1,
      jobTemplate: {
        metadata: { labels },
        spec: {
          backoffLimit: 2,
          activeDeadlineSeconds: 3600,
          template: {
            metadata: { labels },
            spec: {
              restartPolicy: "Never",
              automountServiceAccountToken: false,
              enableServiceLinks: false,
              securityContext: {
                runAsNonRoot: true,
                runAsUser: 65532,
                runAsGroup: 65532,
                fsGroup: 65532,
                seccompProfile: { type: "RuntimeDefault" },
              },
              containers: [
                {
                  name: "backup",
                  image: "postgres:15",
                  imagePullPolicy: "IfNotPresent",
                  args: ["dump", "/backups"],
                  env: [
                    { name: "DATABASE_HOST", value: "db" },
                    { name: "DATABASE_NAME", value: "guestbook" },
                    { name: "DATABASE_USER", value: "guestbook" },
                    { name: "KEEP", value: "7" },
                    { name: "PATIENCE", value: "60" },
                  ],
                  resources: { requests: { cpu: "50m", memory: "64Mi" }, limits: { memory: "256Mi" } },
                  securityContext: {
                    allowPrivilegeEscalation: false,
                    readOnlyRootFilesystem: true,
                    capabilities: { drop: ["ALL"] },
                  },
                  volumeMounts: [
                    { name: "backups", mountPath: "/backups" },
                    { name: "secret", mountPath: "/etc/postgres-secret", readOnly: true },
                    { name: "tmp", mountPath: "/tmp" },
                  ],
                },
              ],
              volumes: [
                { name: "backups", persistentVolumeClaim: { claimName: "db-backup" } },
                {
                  name: "secret",
                  secret: {
                    secretName: "db",
                    defaultMode: 0o440,
                    items: [{ key: "password", path: "password" }],
                  },
                },
                { name: "tmp", emptyDir: {} },
              ],
            },
          },
        },
      },
    },
  });
});

test("a suspended backup keeps its volume", async () => {
  const { claim, cronJob } = await make({ suspend: true });
  assert.ok(claim);
  assert.equal((cronJob?.spec as { suspend?: unknown } | undefined)?.suspend, true);
});
