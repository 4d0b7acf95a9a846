import { closest } from "fastest-levenshtein";
import { z } from "zod";
import { isLabel } from "./k3s-flags.ts";
import { dnsLabel, imageReference, isNumeric, isOneLine, isSubdomain, serviceName, text } from "./names.ts";
import { parseQuantity, quotaShortages } from "./quota.ts";
import { podsOfDeployments, replicasSchema, type Scale, scaleOf } from "./replicas.ts";
import { hostsOf, pathsOf } from "./routes.ts";

/** A namespace for apps; Kubernetes reserves the prefix `kube-`. */
export const ownNamespace = dnsLabel.refine(
  (name) => !name.startsWith("kube-"),
  "a name without the prefix kube-, which Kubernetes reserves for itself",
);

/** A namespace that a stack creates, and deletes with the stack. */
export const createdNamespace = ownNamespace.refine(
  (name) => name !== "default",
  "another name: every cluster has the namespace default",
);

/** The host of an Ingress rule. */
export const ingressHost = z.string().superRefine((text, context) => {
  const add = (message: string) => context.addIssue({ code: "custom", message });
  const name = text.replace(/^\*\./, "");
  if (/^[a-z]+:\/\//i.test(text) || text.includes("/")) add("a host name without scheme and path");
  else if (/:\d*$/.test(text)) add("a host name without a port: that is the Ingress controller's");
  else if (isNumeric(name) || text.includes(":"))
    add("a host name: an Ingress takes no IP address. Leave host out to match every host");
  else if (text === "*") add("a host name, or no host to match every host");
  else if (text.endsWith(".")) add("a host name without a dot at the end");
  else if (text !== text.toLowerCase() && isSubdomain(name.toLowerCase())) add("a host name in lower case");
  else if (!isSubdomain(name))
    add("a host name such as app1.com or *.app1.com: labels of a-z, 0-9 and '-', separated by dots");
});

/** A host without a wildcard. */
export const singleHost = ingressHost.refine(
  (name) => !name.startsWith("*"),
  "one host name, such as my-app.com",
);

/** A path that Ingress and Traefik read alike; in Traefik `{` begins a pattern. */
const ingressPath = z.string().superRefine((text, context) => {
  const add = (message: string) => context.addIssue({ code: "custom", message });
  if (!text.startsWith("/")) add("a path that begins with a slash, such as /api");
  else if (text.includes("//")) add("a path without two slashes in a row");
  else if (text.length > 1 && text.endsWith("/"))
    add(`a path without a slash at the end: ${text.slice(0, -1)}`);
  else if (/\/\.{1,2}(\/|$)/.test(text)) add("a path without the parts . and .., which clients remove");
  else if (!/^[\w.~/-]{1,200}$/.test(text))
    add("a path of letters, digits, -, ., _, ~ and /, at most 200 characters");
});

/** A host that a rule's host matches: the same name or, for *.app.com, one below app.com. */
export const exampleHost = (host: string): string => host.replace(/^\*/, "any");

export const oneLine = z.string().min(1).refine(isOneLine, "text without control characters");

/** The stack of a cluster. */
const clusterStack = dnsLabel.refine(
  (stack) => stack.length <= 40 && /^(cluster|k3d)(-|$)/.test(stack),
  "a stack that creates a cluster: cluster, k3d, cluster-… or k3d-…",
);

/** The version of an app that its pods show. */
export const appVersion = text(/^\w([\w.+-]{0,61}\w)?$/, "a version such as 1.0.0");

/** https settings of apps. */
export const tlsSchema = z
  .strictObject({
    certificate: oneLine
      .optional()
      .describe(
        "A certificate of your own for the host: a PEM file, relative to the checkout, followed by the certificates that signed it. Default: one signed by the lab's own authority, see `lab ca`.",
      ),
    key: oneLine
      .optional()
      .describe(
        "The key of `certificate`, and required with it: a PEM file, mode 0600, without a passphrase.",
      ),
  })
  .superRefine(({ certificate, key }, context) => {
    const add = (path: string, message: string) =>
      context.addIssue({ code: "custom", path: [path], message });
    if (certificate !== undefined && key === undefined) add("key", "the file of the certificate's key");
    if (certificate === undefined && key !== undefined)
      add("certificate", "the file of the key's certificate");
  });

/** Which nodes pods prefer. */
export const nodesSchema = z
  .string()
  .refine(isLabel, "a label KEY=VALUE of the nodes, such as dedicated=web")
  .optional()
  .describe(
    "Nodes that the pods prefer: those with this label, `KEY=VALUE`, whose taint of the same key and value they tolerate. Default: any node without a taint.",
  );

const app = z.strictObject({
  name: serviceName.describe(
    "Name of the app and of its Deployment, Service and Ingress: a DNS label that begins with a letter, unique in its namespace.",
  ),
  namespace: ownNamespace
    .optional()
    .describe(
      "Namespace of the app: `default`, the stack's `namespace` or one of its `namespaces`. Default: the stack's `namespace`.",
    ),
  host: ingressHost
    .optional()
    .describe(
      "Host name that the Ingress routes to the app, unique in the stack unless `paths` share it; `*.app.com` matches every name directly below app.com. Default: none. One app may omit it, and then answers every request that no other host matches.",
    ),
  aliases: z
    .array(singleHost)
    .max(20, "at most 20 hosts")
    .optional()
    .describe(
      "More host names that the Ingress routes to the app; its certificate covers them too. Needs a host without `*`. Default: none.",
    ),
  paths: z
    .array(
      z.strictObject({
        path: ingressPath.describe(
          "A path of the host, such as `/api`; unique among the apps with this host. The longest matching path wins.",
        ),
        match: z
          .enum(["prefix", "exact"])
          .default("prefix")
          .describe(
            "`prefix`: the path and all below it, `/api` and `/api/entries` but not `/apiary`. `exact`: only the path itself.",
          ),
      }),
    )
    .min(1, "at least one path")
    .max(20, "at most 20 paths")
    .optional()
    .describe(
      "The paths of the host that are routed to the app; others may belong to other apps of its namespace with this host. Needs a host without `*`. Default: all of them.",
    ),
  tls: tlsSchema
    .optional()
    .describe(
      "Https for the app, which needs a host; `{}` is enough. On the lab's own clusters, http is redirected to https. Default: http only.",
    ),
  replicas: replicasSchema
    .default(1)
    .describe("Number of pods, or `{min: 1, max: 4}` for a HorizontalPodAutoscaler, which sets it by load."),
  version: appVersion
    .default("1.0.0")
    .describe("Version that the app's page shows. Changing it rolls out new pods."),
  nodes: nodesSchema,
  canary: appVersion
    .optional()
    .describe(
      "A second version, which one extra pod runs and which gets that pod's share of the requests; see `lab rollout --canary` and `--resume`. Default: none.",
    ),
});

/** A positive Kubernetes quantity; a bare number is accepted too, as in a manifest. */
const quantity = (pattern: RegExp, expected: string) =>
  z
    .preprocess(
      (value) => (typeof value === "number" ? String(value) : value),
      z.string().refine((text) => pattern.test(text) && (parseQuantity(text) ?? 0) > 0, expected),
    )
    .meta({ type: ["string", "number"] });

/** The same for memory and volumes. */
export const bytes = (expected: string) =>
  quantity(/^(\d{1,15}|\d{1,12}([KM]i?|k)|\d{1,6}[GT]i?)$/, expected);

const namespace = z.strictObject({
  name: createdNamespace.describe("Name of the namespace: a DNS label; not `default`, not `kube-…`."),
  quota: z
    .strictObject({
      pods: z.int().min(1).max(100_000).optional().describe("Number of pods."),
      cpu: quantity(
        /^(\d{1,12}m|\d{1,9}(\.\d{1,3})?)$/,
        'CPUs as Kubernetes counts them, such as "500m" or "2"',
      )
        .optional()
        .describe('Sum of CPU requests, such as `"500m"` or `"2"`.'),
      memory: bytes('memory as Kubernetes counts it, such as "512Mi" or "2Gi"')
        .optional()
        .describe('Sum of memory limits, such as `"512Mi"` or `"2Gi"`.'),
    })
    .optional()
    .describe(
      "ResourceQuota for all pods of the namespace: the maximum for its apps, plus one pod per app for rollouts. Default: no quota.",
    ),
  isolated: z
    .boolean()
    .default(true)
    .describe(
      "Whether a NetworkPolicy admits requests only from the namespace itself and from the Ingress controller.",
    ),
});

/** A namespace that an `apps` stack creates. */
export type AppNamespace = z.output<typeof namespace>;

/** The value of `k3s-lab:ingress` that deploys the lab's own Ingress controller. */
export const managedIngress = "managed";

/** Namespace and IngressClass of the lab's own Ingress controller. */
export const managedTraefik = {
  namespace: "traefik",
  ingressClass: "traefik",
  /** Its ClusterRole and ClusterRoleBinding, where somebody else may have a "traefik". */
  role: "k3s-lab-traefik",
  /** What Traefik's `kubernetesingress` provider reads, and the one thing that it writes. */
  rules: [
    {
      apiGroups: [""],
      resources: ["services", "endpoints", "secrets", "nodes"],
      verbs: ["get", "list", "watch"],
    },
    { apiGroups: ["discovery.k8s.io"], resources: ["endpointslices"], verbs: ["list", "watch"] },
    {
      apiGroups: ["extensions", "networking.k8s.io"],
      resources: ["ingresses", "ingressclasses"],
      verbs: ["get", "list", "watch"],
    },
    { apiGroups: ["extensions", "networking.k8s.io"], resources: ["ingresses/status"], verbs: ["update"] },
  ],
};

export const rbacGroup = "rbac.authorization.k8s.io";

/**
 * Labels that select an Ingress controller's pods in their namespace. Only Traefik's are known; with another controller
 * every pod of its namespace counts, so it should have a namespace to itself.
 */
export const controllerLabels = (ingress: string): Readonly<Record<string, string>> =>
  [managedIngress, "traefik"].includes(ingress) ? { "app.kubernetes.io/name": "traefik" } : {};

/** Where a stack's apps run and how requests reach them, for every program. */
export const onCluster = {
  cluster: z
    .union(
      [
        z.strictObject({
          stack: clusterStack.describe(
            "A stack of this checkout that creates a cluster: `cluster…` or `k3d…`.",
          ),
        }),
        z.strictObject({
          kubeconfig: oneLine.describe("A kubeconfig file, read as kubectl reads it."),
          context: oneLine.describe("A context of that file."),
        }),
      ],
      { error: "{ stack: NAME } or { kubeconfig: FILE, context: NAME }" },
    )
    .describe(
      "The cluster that the apps run on: `{stack: NAME}` for a cluster of the lab, `{kubeconfig: FILE, context: NAME}` for any other.",
    ),
  ingress: z
    .string()
    .refine(isSubdomain, "managed, or the name of an IngressClass such as traefik")
    .default("traefik")
    .describe("An IngressClass of the cluster, or `managed`: the lab then installs its own Traefik."),
  ingressNamespace: dnsLabel
    .optional()
    .describe(
      "Namespace where the pods of the Ingress controller run. Required for isolated namespaces with a controller other than Traefik; not accepted with `ingress: managed`. Default: `kube-system`, where K3s runs its Traefik.",
    ),
};

interface IngressChoice {
  readonly ingress: string;
  readonly ingressNamespace?: string | undefined;
}

/** Why a stack may not have its own things in a namespace: the lab's own Traefik, if it is used, runs there. */
export const traefikNamespaceFault = (ingress: string, namespace: string): string | undefined =>
  ingress === managedIngress && namespace === managedTraefik.namespace
    ? "another name: the lab's own Traefik runs in this namespace"
    : undefined;

/** Why the Ingress controller cannot be in the namespace that a file names. @param isolated whether that matters. */
export function ingressNamespaceFault(
  { ingress, ingressNamespace }: IngressChoice,
  isolated: boolean,
): string | undefined {
  if (ingress === managedIngress && ingressNamespace !== undefined)
    return `no value: the lab's own Traefik runs in ${managedTraefik.namespace}`;
  // The namespaces of K3s's Traefik and of the lab's are fixed; only the user knows that of another controller.
  const known = [managedIngress, managedTraefik.ingressClass].includes(ingress);
  return known || ingressNamespace !== undefined || !isolated
    ? undefined
    : `the namespace in which the Ingress controller "${ingress}" runs, such as ingress-nginx: isolated namespaces admit only its pods`;
}

/** The namespace of the pods of the Ingress controller. */
export const ingressNamespaceOf = ({ ingress, ingressNamespace }: IngressChoice): string =>
  ingress === managedIngress ? managedTraefik.namespace : (ingressNamespace ?? "kube-system");

/** The schema of `Pulumi.apps.yaml`. */
export const appsSchema = z
  .strictObject({
    ...onCluster,
    namespace: ownNamespace
      .default("default")
      .describe("Namespace of apps that do not name one. It must exist or be one of `namespaces`."),
    namespaces: z
      .array(namespace)
      .default([])
      .describe(
        "Namespaces that the stack creates, and deletes with the stack. Their pods run unprivileged only.",
      ),
    image: text(imageReference, "an image reference such as registry.example/web:1.0")
      .optional()
      .describe(
        "An image of the web app that the cluster can pull. Default: the lab's own, loaded into the nodes.",
      ),
    apps: z.array(app).min(1, "at least one app").describe("The apps, at least one."),
  })
  .superRefine((config, context) => {
    const { namespaces } = config;
    const add = (path: PropertyKey[], message: string) => context.addIssue({ code: "custom", path, message });
    namespaces.forEach(({ name }, index) => {
      if (namespaces.slice(0, index).some((other) => other.name === name))
        add(["namespaces", index, "name"], "a name that no other namespace has");
      const fault = traefikNamespaceFault(config.ingress, name);
      if (fault) add(["namespaces", index, "name"], fault);
    });
    const taken = traefikNamespaceFault(config.ingress, config.namespace);
    if (taken) add(["namespace"], taken);

    const known = [...new Set([config.namespace, "default", ...namespaces.map(({ name }) => name)])];
    const apps = inNamespaces(config);
    namespaces.forEach(({ name, quota }, index) => {
      const replicas = apps.filter(({ namespace }) => namespace === name).flatMap(podsOfDeployments);
      for (const { part, expected } of quotaShortages(quota ?? {}, replicas))
        add(["namespaces", index, "quota", part], expected);
    });
    const fault = ingressNamespaceFault(
      config,
      namespaces.some(({ isolated }) => isolated),
    );
    if (fault) add(["ingressNamespace"], fault);
    apps.forEach((one, index) => {
      const before = apps.slice(0, index);
      if (!known.includes(one.namespace))
        add(
          ["apps", index, "namespace"],
          `one of: ${known.join(", ")} (did you mean "${closest(one.namespace, known)}"?), or add it to k3s-lab:namespaces`,
        );
      if (one.name === "kubernetes" && one.namespace === "default")
        add(["apps", index, "name"], "another name: default/kubernetes is the Service of the API server");
      const double = before.find(({ name, namespace }) => name === one.name && namespace === one.namespace);
      if (double) add(["apps", index, "name"], `a name that no other app in ${one.namespace} has`);
      const clash = before.find((other) => other !== double && resourceName(other) === resourceName(one));
      if (clash)
        add(
          ["apps", index, "name"],
          `another name: Pulumi would call ${appPath(config, clash)} ${resourceName(one)} too`,
        );
      const twin = apps.find((other) => other.name === canaryOf(one) && other.namespace === one.namespace);
      if (twin) add(["apps", index, "canary"], `no canary while another app is called ${twin.name}`);
      if (one.canary === one.version)
        add(["apps", index, "canary"], "another version than the app has, or none");
      if (one.tls && one.host === undefined)
        add(["apps", index, "tls"], "no tls without a host, which a certificate needs");
      if (!double)
        for (const { path, expected } of routeFaults(config, one, before))
          add(["apps", index, ...path], expected);
    });
  })
  .transform((config) => ({
    ...config,
    apps: inNamespaces(config),
    ingressNamespace: ingressNamespaceOf(config),
  }));

interface Routed extends AppId {
  readonly host?: string | undefined;
  readonly aliases?: readonly string[] | undefined;
  readonly paths?: readonly { readonly path: string }[] | undefined;
}

interface RouteFault {
  readonly path: PropertyKey[];
  readonly expected: string;
}

/** Conflicts of an app's hosts and paths with other apps, and invalid ones. @param before the apps above it. */
function routeFaults(
  config: { readonly namespace: string },
  one: Routed,
  before: readonly Routed[],
): RouteFault[] {
  const needing = (["paths", "aliases"] as const).filter((key) => one[key]);
  if (needing.length > 0 && (one.host === undefined || one.host.startsWith("*")))
    return needing.map((key) => ({
      path: [key],
      expected: `no ${key} with ${one.host ? "a host with *" : "no host"}`,
    }));
  const hosts = hostsOf(one);
  return hosts.flatMap((host, index) => {
    const where = index === 0 ? ["host"] : ["aliases", index - 1];
    if (hosts.indexOf(host) < index)
      return [{ path: where, expected: "a host that the app does not already have" }];
    const twins = before.filter((other) => hostsOf(other).includes(host));
    return hostFaults(config, { ...one, host }, twins, where);
  });
}

/** @param twins other apps with this host. @param hostAt the host's place in the file. */
function hostFaults(
  config: { readonly namespace: string },
  one: Routed,
  twins: readonly Routed[],
  hostAt: PropertyKey[],
): RouteFault[] {
  const apart = twins.find(({ namespace }) => one.host === undefined || namespace !== one.namespace);
  const owner = apart ?? twins.find(({ paths }) => !paths && !one.paths);
  if (owner) {
    const all = one.host === undefined ? "a host: only one app can answer all other hosts" : undefined;
    const whose = one.paths ? "app of another namespace" : "other app";
    const expected = `${all ?? `a host that no ${whose} has`} (${appPath(config, owner)} has it)`;
    return [{ path: hostAt, expected }];
  }
  const paths = pathsOf(one);
  return paths.flatMap(({ path }, index) => {
    const where = one.paths ? ["paths", index, "path"] : ["paths"];
    if (paths.slice(0, index).some((other) => other.path === path))
      return [{ path: where, expected: "a path that the app does not already have" }];
    const twin = twins.find((other) => pathsOf(other).some((its) => its.path === path));
    return twin
      ? [
          {
            path: where,
            expected: `a path that no other app at ${one.host} has (${appPath(config, twin)} has it)`,
          },
        ]
      : [];
  });
}

interface Unplaced {
  readonly namespace?: string | undefined;
  readonly replicas: Parameters<typeof scaleOf>[0];
}

function inNamespaces<T extends Unplaced>(config: {
  readonly namespace: string;
  readonly apps: readonly T[];
}): (Omit<T, keyof Unplaced> & Scale & { readonly namespace: string })[] {
  return config.apps.map((one) => ({
    ...one,
    ...scaleOf(one.replicas),
    namespace: one.namespace ?? config.namespace,
  }));
}

/** One web app: its namespace, host, replicas and version. */
export type App = AppsConfig["apps"][number];

/** An app's identity: its name and its namespace. */
type AppId = Pick<App, "name" | "namespace">;

/** An app's display name: its name in the stack's own namespace, namespace and name in any other. */
export const appPath = (config: Pick<AppsConfig, "namespace">, { name, namespace }: AppId): string =>
  namespace === config.namespace ? name : `${namespace}/${name}`;

/** The Deployment of an app's canary; undefined without one. */
export const canaryOf = ({
  name,
  canary,
}: {
  readonly name: string;
  readonly canary?: string | undefined;
}) => (canary === undefined ? undefined : `${name}-canary`);

/** The Secret of an app's certificate. */
export const tlsSecretOf = ({ name }: Pick<AppId, "name">): string => `${name}-tls`;

/**
 * The name of an app's resource in Pulumi. It includes the actual namespace, so that another default namespace renames
 * nothing.
 */
export const resourceName = ({ name, namespace }: AppId): string => `${namespace}-${name}`;

/** `Pulumi.apps.yaml` with defaults filled in. */
export type AppsConfig = z.output<typeof appsSchema>;
