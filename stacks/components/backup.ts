import * as k8s from "@pulumi/kubernetes";
import * as pulumi from "@pulumi/pulumi";
import { unprivilegedContainer, unprivilegedPod } from "./unprivileged.ts";
import { skipAwait } from "./web-app.ts";

export interface BackupArgs {
  /** Name of the CronJob and of its PersistentVolumeClaim. Default: the resource's name. */
  readonly backupName?: string;
  /** PostgreSQL image that every node already holds or can pull. */
  readonly image: pulumi.Input<string>;
  /** Namespace of the database and its backups; the pods comply with Pod Security's level `restricted`. */
  readonly namespace: pulumi.Input<string>;
  /** Host of the database that accepts writes. */
  readonly host: pulumi.Input<string>;
  /** Name of the database in PostgreSQL, and of the role that owns it. */
  readonly owner: string;
  /** Name of the Secret with that role's `password`. */
  readonly secretName: pulumi.Input<string>;
  /** Schedule in cron format, in the time zone of the control plane. */
  readonly schedule: string;
  /** Number of backups to keep; older ones are removed once a new one is complete. */
  readonly keep: number;
  /** Suspends backups; existing ones stay. Default: false. */
  readonly suspend?: boolean;
  /** Size of the volume. Kubernetes cannot change it later. Default: `1Gi`. */
  readonly size?: pulumi.Input<string>;
  /** StorageClass of the volume. Default: the cluster's default. */
  readonly storageClass?: pulumi.Input<string> | undefined;
}

/** Mount paths of the volume, the passwords and the scratch space. */
const mounts = { backups: "/backups", secret: "/etc/postgres-secret", tmp: "/tmp" } as const;

/** Deadlines in seconds: to start a late backup, for the database to answer, and for one backup. */
const deadlines = { begin: 3600, answer: 60, end: 3600 } as const;

/**
 * Scheduled backups of a `Database`: a CronJob that writes a consistent dump and its checksum to a separate volume and keeps
 * the newest ones. Two never run at once, and a failed backup removes no earlier one.
 * The volume is on one node of the same cluster: use `lab backup` to copy what must outlive it.
 */
export class Backup extends pulumi.ComponentResource {
  readonly claim: k8s.core.v1.PersistentVolumeClaim;
  readonly cronJob: k8s.batch.v1.CronJob;

  constructor(name: string, args: BackupArgs, opts?: pulumi.ComponentResourceOptions) {
    super("k3s-lab:apps:Backup", name, {}, opts);
    const { backupName = name, namespace, size = "1Gi", storageClass } = args;
    const labels = { "app.kubernetes.io/name": backupName, "app.kubernetes.io/part-of": "k3s-lab" };
    const metadata = { name: backupName, namespace, labels };
    const child = { parent: this };

    this.claim = new k8s.core.v1.PersistentVolumeClaim(
      name,
      {
        // The volume is provisioned with the first pod that uses it.
        metadata: { ...metadata, annotations: skipAwait },
        spec: {
          accessModes: ["ReadWriteOnce"],
          resources: { requests: { storage: size } },
          ...(storageClass === undefined ? {} : { storageClassName: storageClass }),
        },
      },
      child,
    );

    this.cronJob = new k8s.batch.v1.CronJob(
      name,
      {
        metadata,
        spec: {
          schedule: args.schedule,
          suspend: args.suspend ?? false,
          concurrencyPolicy: "Forbid",
          startingDeadlineSeconds: deadlines.begin,
          successfulJobsHistoryLimit: 1,
          failedJobsHistoryLimit: 1,
          jobTemplate: {
            metadata: { labels },
            spec: {
              backoffLimit: 2,
              activeDeadlineSeconds: deadlines.end,
              template: { metadata: { labels }, spec: podSpec(args, this.claim.metadata.name) },
            },
          },
        },
      },
      child,
    );

    this.registerOutputs();
  }
}

function podSpec(
  { image, host, owner, keep, secretName }: BackupArgs,
  claimName: pulumi.Input<string>,
): k8s.types.input.core.v1.PodSpec {
  return {
    restartPolicy: "Never",
    automountServiceAccountToken: false,
    enableServiceLinks: false,
    securityContext: { ...unprivilegedPod, fsGroup: unprivilegedPod.runAsGroup },
    containers: [
      {
        name: "backup",
        image,
        imagePullPolicy: "IfNotPresent",
        args: ["dump", mounts.backups],
        env: [
          { name: "DATABASE_HOST", value: host },
          { name: "DATABASE_NAME", value: owner },
          { name: "DATABASE_USER", value: owner },
          { name: "KEEP", value: String(keep) },
          { name: "PATIENCE", value: String(deadlines.answer) },
        ],
        resources: { requests: { cpu: "50m", memory: "64Mi" }, limits: { memory: "256Mi" } },
        securityContext: unprivilegedContainer,
        volumeMounts: [
          { name: "backups", mountPath: mounts.backups },
          { name: "secret", mountPath: mounts.secret, readOnly: true },
          { name: "tmp", mountPath: mounts.tmp },
        ],
      },
    ],
    volumes: [
      { name: "backups", persistentVolumeClaim: { claimName } },
      {
        name: "secret",
        secret: { secretName, defaultMode: 0o440, items: [{ key: "password", path: "password" }] },
      },
      { name: "tmp", emptyDir: {} },
    ],
  };
}
