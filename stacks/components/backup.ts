import * as k8s from "@pulumi/kubernetes";
import * as pulumi from "@pulumi/pulumi";
import { unprivilegedContainer, unprivilegedPod } from "./unprivileged.ts";
import { skipAwait } from "./web-app.ts";

/** What a `Backup` is made from. */
export interface BackupArgs {
  /** Name of the CronJob and of its volume's claim. Default: the resource's name. */
  readonly backupName?: string;
  /** The image of PostgreSQL that every node already holds, or can pull. */
  readonly image: pulumi.Input<string>;
  /** Namespace of the database and of its backups; the pods pass Pod Security's level `restricted`. */
  readonly namespace: pulumi.Input<string>;
  /** Host of the database that takes writes. */
  readonly host: pulumi.Input<string>;
  /** Name of the database in PostgreSQL, and of the role that owns it. */
  readonly owner: string;
  /** Name of the Secret that has that role's `password`. */
  readonly secretName: pulumi.Input<string>;
  /** When a backup is made, as cron writes it, in the time zone of the control plane. */
  readonly schedule: string;
  /** Number of backups that stay; older ones are removed once a new one is whole. */
  readonly keep: number;
  /** Whether none is made for now. What is there stays. Default: false. */
  readonly suspend?: boolean;
  /** Size of the volume. Kubernetes does not let it change later. Default: `1Gi`. */
  readonly size?: pulumi.Input<string>;
  /** StorageClass of the volume. Default: the cluster's own. */
  readonly storageClass?: pulumi.Input<string> | undefined;
}

/** Where a pod has the volume, its passwords, and what it may write beside. */
const mounts = { backups: "/backups", secret: "/etc/postgres-secret", tmp: "/tmp" } as const;

/** Seconds after its time in which a backup is still begun, that the database may take to answer, and that one may take. */
const deadlines = { begin: 3600, answer: 60, end: 3600 } as const;

/**
 * Backups of a `Database` by the clock: a CronJob that writes a consistent dump, with its checksum, to a volume of its own and
 * keeps the newest. Two never run at once, and one that fails takes none of the others away.
 * The volume is on one node of the same cluster: what must outlive that is taken out by `lab backup`.
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
        // Its volume is made with the first pod that uses it.
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
