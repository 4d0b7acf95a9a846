import { z } from "zod";
import {
  type App,
  type AppNamespace,
  appVersion,
  bytes,
  createdNamespace,
  ingressNamespaceFault,
  ingressNamespaceOf,
  nodesSchema,
  onCluster,
  oneLine,
  singleHost,
  tlsSchema,
  traefikNamespaceFault,
} from "./apps.ts";
import { imageReference, storageClassName, text } from "./names.ts";
import { parseQuantity } from "./quota.ts";
import { replicasSchema, scaleOf } from "./replicas.ts";
import { isSchedule } from "./schedule.ts";

/** Text shown on the page. */
const shownText = oneLine.refine((words) => words.length <= 200, "at most 200 characters");

const image = text(imageReference, "an image reference such as registry.example/my-app:1.0").optional();

/**
 * The smallest volume that PostgreSQL fits in: 42 MB of its own, 256 MB of write-ahead log, and as much again that it keeps
 * for a replica that is away. It stops when the log does not fit.
 */
const leastSize = "1Gi";

const database = z.strictObject({
  replicas: z
    .int()
    .min(1)
    .max(2)
    .default(2)
    .describe("Pods of PostgreSQL: one takes writes, a second replicates it and serves reads."),
  primary: z
    .int()
    .min(0)
    .max(1)
    .default(0)
    .describe("Number of the pod that takes writes: 1 after db-1 was promoted because db-0 is lost."),
  size: bytes('an amount as Kubernetes counts it, such as "1Gi"')
    .refine(
      (size) => (parseQuantity(size) ?? 0) >= (parseQuantity(leastSize) ?? 0),
      `at least ${leastSize}, which PostgreSQL's own files and log need`,
    )
    .default("1Gi")
    .describe('Volume of each of these pods, such as `"2Gi"`. It cannot be changed later. Default: `1Gi`.'),
  storageClass: storageClassName
    .optional()
    .describe("StorageClass of the volumes. Default: the cluster's own, which is `local-path` in K3s."),
  nodes: nodesSchema,
});

const backup = z.strictObject({
  schedule: z
    .string()
    .refine(
      isSchedule,
      'five fields as cron writes them, such as "17 3 * * *" for every night at 3:17, and a day that comes',
    )
    .default("17 3 * * *")
    .describe(
      "When a backup is made: minute, hour, day, month, weekday, in the time zone of the control plane.",
    ),
  keep: z
    .int()
    .min(1)
    .max(100)
    .default(7)
    .describe("Number of backups to keep; older ones are removed once a new one is complete."),
  suspend: z.boolean().default(false).describe("`true` pauses backups. Existing ones stay."),
});

/** Name of a database's PriorityClass, which is cluster-scoped; a cluster may have several, one for each namespace. */
export const priorityClassName = (database: string, namespace: string): string => `${database}.${namespace}`;

/** The schema of `Pulumi.my-app.yaml`. */
export const myAppSchema = z
  .strictObject({
    ...onCluster,
    namespace: createdNamespace
      .default("my-app")
      .describe("Namespace that the stack creates for itself, and deletes with the stack and its data."),
    hosts: z
      .strictObject({
        site: singleHost
          .default("my-app.com")
          .describe("Host of the page, at `/`, and of the API below it, at `/api`."),
        admin: singleHost.default("admin.my-app.com").describe("Host of the admin page, at `/login`."),
        aliases: z
          .array(singleHost)
          .max(20, "at most 20 hosts")
          .default([])
          .describe("More hosts of the page and its API, such as `myapp.com`."),
      })
      .prefault({})
      .describe("The hosts that the Ingress controller routes to the guest book."),
    tls: tlsSchema
      .optional()
      .describe(
        "Https for all hosts; `{}` is enough. On the lab's own clusters, http is redirected to https. Default: http only.",
      ),
    version: appVersion
      .default("1.0.0")
      .describe("Version that every page shows. Changing it rolls out new pods."),
    canary: appVersion
      .optional()
      .describe(
        "A second version, which one extra pod of each page runs and which gets those pods' share of the requests; see `lab rollout --canary` and `--resume`. Default: none.",
      ),
    replicas: z
      .strictObject({
        frontend: replicasSchema.default(2).describe("Pods that serve the page."),
        api: replicasSchema.default(2).describe("Pods that serve the API."),
        admin: replicasSchema.default(1).describe("Pods that serve the admin page."),
      })
      .prefault({})
      .describe(
        "Number of pods of each, or `{min: 2, max: 4}` for a HorizontalPodAutoscaler, which sets it by load.",
      ),
    database: database.prefault({}).describe("The database of the guest book."),
    backup: backup
      .prefault({})
      .describe("Backups of the database, on their own volume, which is provisioned like the database's."),
    title: shownText.default("Guest book").describe("Title of the page."),
    greeting: shownText
      .default("Leave a line for those who come after you.")
      .describe("What the page says above the entries. Changing it rolls out new pods."),
    images: z
      .strictObject({
        app: image.describe(
          "Image of frontend, API and admin. Default: the lab's own, loaded into the nodes.",
        ),
        database: image.describe("Image of the database. Default: the lab's own, loaded into the nodes."),
      })
      .prefault({})
      .describe("Images that the cluster can pull. Both are required for a cluster that no stack created."),
  })
  .superRefine((config, context) => {
    const add = (path: PropertyKey[], message: string) => context.addIssue({ code: "custom", path, message });
    const { cluster, hosts, images, ingress, namespace } = config;
    const fault = ingressNamespaceFault(config, true);
    if (fault) add(["ingressNamespace"], fault);
    const taken = traefikNamespaceFault(ingress, namespace);
    if (taken) add(["namespace"], taken);
    if (config.database.primary >= config.database.replicas)
      add(["database", "primary"], "an existing pod: 0, or 1 with two replicas");
    if (config.canary === config.version) add(["canary"], "another version than the guest book has, or none");
    const names = [hosts.site, hosts.admin, ...hosts.aliases];
    for (const [index, name] of names.entries())
      if (names.indexOf(name) < index)
        add(
          ["hosts", ...(index === 1 ? ["admin"] : ["aliases", index - 2])],
          index === 1 ? "another host than hosts.site" : "a host that the guest book does not already have",
        );
    // The lab does not load images into the nodes of such a cluster.
    if ("kubeconfig" in cluster)
      for (const which of ["app", "database"] as const)
        if (images[which] === undefined)
          add(
            ["images", which],
            "an image that the cluster can pull, because no stack of the lab created the cluster",
          );
  })
  .transform((config) => ({
    ...config,
    ingressNamespace: ingressNamespaceOf(config),
    namespaces: [{ name: config.namespace, isolated: true }] as AppNamespace[],
    apps: webAppsOf(config),
  }));

/** The web apps of the guest book, in the form that all stacks use. */
function webAppsOf({
  namespace,
  hosts,
  tls,
  version,
  canary,
  replicas,
}: {
  readonly namespace: string;
  readonly hosts: { readonly site: string; readonly admin: string; readonly aliases: string[] };
  readonly tls?: App["tls"];
  readonly version: string;
  readonly canary?: string | undefined;
  readonly replicas: Readonly<Record<"frontend" | "api" | "admin", Parameters<typeof scaleOf>[0]>>;
}): (App & { readonly name: "frontend" | "api" | "admin" })[] {
  const common = { namespace, version, ...(canary ? { canary } : {}), ...(tls ? { tls } : {}) };
  const site = { host: hosts.site, ...(hosts.aliases.length > 0 ? { aliases: hosts.aliases } : {}) };
  return [
    { ...common, ...site, name: "frontend", ...scaleOf(replicas.frontend) },
    { ...common, ...site, name: "api", paths: below("/api"), ...scaleOf(replicas.api) },
    { ...common, name: "admin", host: hosts.admin, paths: below("/login"), ...scaleOf(replicas.admin) },
  ];
}

const below = (path: string) => [{ path, match: "prefix" as const }];

/** `Pulumi.my-app.yaml` with defaults filled in. */
export type MyAppConfig = z.output<typeof myAppSchema>;
