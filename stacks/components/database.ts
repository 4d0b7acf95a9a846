import * as k8s from "@pulumi/kubernetes";
import * as pulumi from "@pulumi/pulumi";
import { databasePriority, placement } from "./placement.ts";
import { unprivilegedContainer, unprivilegedPod } from "./unprivileged.ts";
import { skipAwait } from "./web-app.ts";

export interface DatabaseArgs {
  /** Name of the StatefulSet and of its Services: NAME, NAME-read, NAME-pods. Default: the resource's name. */
  readonly databaseName?: string;
  /** PostgreSQL image that every node already holds or can pull. */
  readonly image: pulumi.Input<string>;
  /** Namespace of the database; its pods comply with Pod Security's level `restricted`. */
  readonly namespace: pulumi.Input<string>;
  /** Whether a second pod replicates the first and serves reads. Default: false. */
  readonly replica?: boolean;
  /** Ordinal of the pod that accepts writes: 1 after the replica was promoted. Default: 0. */
  readonly primary?: number;
  /** Size of each pod's volume. Kubernetes cannot change it later. Default: `1Gi`. */
  readonly size?: pulumi.Input<string>;
  /** StorageClass of the volumes. Default: the cluster's default. */
  readonly storageClass?: pulumi.Input<string> | undefined;
  /** KEY=VALUE: the pods prefer nodes with this label, and tolerate the taint of the same key and value. Default: any node. */
  readonly nodes?: string | undefined;
  /** Name of the database in PostgreSQL, and of the role that owns it. */
  readonly owner: string;
  /** Password of that role. */
  readonly password: pulumi.Input<string>;
  /** Password for replication. */
  readonly replicationPassword: pulumi.Input<string>;
}

const port = 5432;

/** The image's program, and what it calls its parts. */
const program = (part: "server" | "ready" | "alive") => ["postgres-entry", part];

/**
 * PostgreSQL with its data on volumes: a StatefulSet whose pod 0 accepts writes and whose optional pod 1 replicates it by
 * streaming replication. The Service NAME selects pod 0, NAME-read the replica, or pod 0 if there is no replica; NAME-pods
 * gives each pod a DNS name.
 * The StatefulSet does not own the PersistentVolumeClaims: deleting or replacing it, or its pods, keeps the data. Only
 * deleting the namespace deletes it.
 */
export class Database extends pulumi.ComponentResource {
  /** Host that accepts writes, in the database's namespace. */
  readonly host: pulumi.Output<string>;
  /** Host that serves reads. */
  readonly readHost: pulumi.Output<string>;
  readonly statefulSet: k8s.apps.v1.StatefulSet;
  readonly secret: k8s.core.v1.Secret;

  constructor(name: string, args: DatabaseArgs, opts?: pulumi.ComponentResourceOptions) {
    super("k3s-lab:apps:Database", name, {}, opts);
    const { databaseName = name, namespace, replica = false } = args;
    const labels = { "app.kubernetes.io/name": databaseName, "app.kubernetes.io/part-of": "k3s-lab" };
    const metadata = { name: databaseName, namespace, labels };
    const child = { parent: this };
    const pods = [0, ...(replica ? [1] : [])];
    const { primary = 0 } = args;

    this.secret = new k8s.core.v1.Secret(
      name,
      {
        metadata,
        stringData: pulumi.secret({
          password: args.password,
          "replication-password": args.replicationPassword,
        }),
      },
      child,
    );

    const priority = databasePriority(name, metadata, child);

    const service = (suffix: string, spec: ServiceSpec) => makeService(name, suffix, metadata, spec, child);
    const toPod = (ordinal: number) => ({
      selector: { ...labels, "statefulset.kubernetes.io/pod-name": `${databaseName}-${ordinal}` },
    });
    this.host = service("", toPod(primary)).metadata.name;
    this.readHost = service("-read", toPod(pods.find((pod) => pod !== primary) ?? primary)).metadata.name;
    // A replica must find pod 0 before it is ready, and an empty pod 0 must find a replica that has data.
    const each = service("-pods", { clusterIP: "None", publishNotReadyAddresses: true, selector: labels });

    this.statefulSet = new k8s.apps.v1.StatefulSet(
      name,
      {
        metadata,
        spec: {
          replicas: pods.length,
          serviceName: each.metadata.name,
          revisionHistoryLimit: 5,
          selector: { matchLabels: labels },
          template: podTemplate(labels, args, databaseName, this.secret, priority),
          volumeClaimTemplates: [dataClaim(labels, args)],
        },
      },
      child,
    );

    // A lost volume cannot say that there was a database. Each pod gets this marker as a file from its second start on; its
    // first start must not see it. Of all that Pulumi waits for, only the StatefulSet is complete exactly when its pods are
    // ready.
    const made = { ...metadata, name: `${databaseName}-made` };
    new k8s.core.v1.ConfigMap(
      `${name}-made`,
      { metadata: made, data: { replicas: String(pods.length) } },
      { ...child, dependsOn: this.statefulSet },
    );

    // Only one pod may be evicted at a time; a drain waits until it is back, where its volume allows.
    new k8s.policy.v1.PodDisruptionBudget(
      name,
      { metadata, spec: { maxUnavailable: 1, selector: { matchLabels: labels } } },
      child,
    );

    this.registerOutputs({ host: this.host, readHost: this.readHost });
  }
}

type ServiceSpec = k8s.types.input.core.v1.ServiceSpec;

const makeService = (
  name: string,
  suffix: string,
  metadata: { readonly name: string },
  spec: ServiceSpec,
  child: pulumi.CustomResourceOptions,
): k8s.core.v1.Service =>
  new k8s.core.v1.Service(
    `${name}${suffix}`,
    {
      // The StatefulSet waits for the pods.
      metadata: { ...metadata, name: `${metadata.name}${suffix}`, annotations: skipAwait },
      spec: { ports: [{ name: "postgres", port, targetPort: "postgres" }], ...spec },
    },
    child,
  );

const dataClaim = (labels: Record<string, string>, { size = "1Gi", storageClass }: DatabaseArgs) => ({
  metadata: { name: "data", labels },
  spec: {
    accessModes: ["ReadWriteOnce"],
    resources: { requests: { storage: size } },
    ...(storageClass === undefined ? {} : { storageClassName: storageClass }),
  },
});

function podTemplate(
  labels: Record<string, string>,
  { image, owner, nodes }: Pick<DatabaseArgs, "image" | "owner" | "nodes">,
  databaseName: string,
  secret: k8s.core.v1.Secret,
  priority: k8s.scheduling.v1.PriorityClass,
): k8s.types.input.core.v1.PodTemplateSpec {
  const env = {
    DATABASE_NAME: owner,
    DATABASE_USER: owner,
    // Lists the hosts to ask; the data decide which pod accepts writes.
    PRIMARY_HOST: `${databaseName}-0.${databaseName}-pods`,
  };
  const probe = (part: "ready" | "alive", periodSeconds: number, failureThreshold: number) => ({
    exec: { command: program(part) },
    periodSeconds,
    failureThreshold,
    timeoutSeconds: 10,
  });
  const emptyDirs = { run: "/run/postgresql", tmp: "/tmp" } as const;
  const spec = {
    automountServiceAccountToken: false,
    enableServiceLinks: false,
    securityContext: { ...unprivilegedPod, fsGroup: unprivilegedPod.runAsGroup },
    // On shutdown PostgreSQL ends its clients' work and writes all that is in memory to disk.
    terminationGracePeriodSeconds: 60,
    ...placement({ labels, nodes, apart: true }),
    priorityClassName: priority.metadata.name,
    containers: [
      {
        name: "postgres",
        image,
        imagePullPolicy: "IfNotPresent",
        args: program("server").slice(1),
        env: Object.entries(env).map(([name, value]) => ({ name, value })),
        ports: [{ name: "postgres", containerPort: port }],
        // The first start creates the database or copies it from pod 0.
        startupProbe: probe("alive", 1, 600),
        readinessProbe: probe("ready", 2, 5),
        livenessProbe: probe("alive", 10, 6),
        resources: { requests: { cpu: "50m", memory: "64Mi" }, limits: { memory: "256Mi" } },
        securityContext: unprivilegedContainer,
        volumeMounts: [
          { name: "data", mountPath: "/var/lib/postgresql" },
          ...Object.entries(emptyDirs).map(([name, mountPath]) => ({ name, mountPath })),
          { name: "secret", mountPath: "/etc/postgres-secret", readOnly: true },
          { name: "made", mountPath: "/etc/postgres-made", readOnly: true },
        ],
      },
    ],
    volumes: [
      ...Object.keys(emptyDirs).map((name) => ({ name, emptyDir: {} })),
      { name: "secret", secret: { secretName: secret.metadata.name, defaultMode: 0o440 } },
      // A new database has no marker.
      { name: "made", configMap: { name: `${databaseName}-made`, optional: true } },
    ],
  };
  return { metadata: { labels }, spec };
}
