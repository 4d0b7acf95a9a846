import * as k8s from "@pulumi/kubernetes";
import * as pulumi from "@pulumi/pulumi";
import { podResources } from "../model/quota.ts";
import { autoscaledMark } from "../model/replicas.ts";
import { pathsOf, type Route, type RoutePath, routesOf } from "../model/routes.ts";
import { type AutoscalingArgs, autoscalerOf, leavesReplicas } from "./autoscaler.ts";
import { type Files, hashedConfigMap, hashedSecret } from "./hashed-files.ts";
import { placement } from "./placement.ts";
import { unprivilegedContainer, unprivilegedPod } from "./unprivileged.ts";

type Container = k8s.types.input.core.v1.Container;

const port = 8080;

/** Port of the metrics. The Service does not expose it, so no Ingress can route to it. */
const metricsPort = 9100;

/** Seconds from SIGTERM until a pod's last request is answered; a test compares it with the app's `graceSeconds`. */
export const graceSeconds = 50;

/** Files mounted into the app's container. */
interface WebAppFiles {
  /** The folder, such as `/etc/my-app`. */
  readonly mountPath: string;
  readonly files: Files;
}

/** A volume of the app's container. */
interface WebAppVolume {
  /** A DNS label, unique in the pod, by which sidecars mount it. Not `config` or `secret`. */
  readonly name: string;
  /** Mount path in the app's container. */
  readonly mountPath: string;
  /** Default: false. */
  readonly readOnly?: boolean;
  /** The volume source, such as `{ emptyDir: {} }` or `{ persistentVolumeClaim: { claimName } }`. */
  readonly source: Omit<k8s.types.input.core.v1.Volume, "name">;
}

/** A container beside the app's. Defaults are those of the app's own: no privileges, small resources. */
type WebAppContainer = Container & { readonly name: string };

/** https settings of an app. */
export interface WebAppTls {
  /** A Secret of type `kubernetes.io/tls` in the app's namespace, for its host. */
  readonly secretName: pulumi.Input<string>;
  /** https port of the Ingress controller as browsers reach it. Default: 443. */
  readonly port?: pulumi.Input<number> | undefined;
  /** Whether `HTTPS_PORT` tells the app to redirect http to https. Default: true. */
  readonly redirect?: boolean | undefined;
}

export interface WebAppArgs {
  /** Name of the app, of its Deployment, Service and Ingress. Default: the resource's name. */
  readonly appName?: string;
  /**
   * Image that every node already holds or can pull. It answers `/healthz` and `/readyz` on port `PORT`, and may serve
   * `/metrics` on port `METRICS_PORT`.
   */
  readonly image: pulumi.Input<string>;
  /** Shown on the page; a new version rolls out without downtime. */
  readonly version: pulumi.Input<string>;
  /** Version of a canary: one additional pod, which gets its share of the Service's requests. Default: none. */
  readonly canary?: pulumi.Input<string> | undefined;
  /** Namespace of the app. Default: `default`. */
  readonly namespace?: pulumi.Input<string>;
  /** Number of pods. Default: 1. */
  readonly replicas?: pulumi.Input<number>;
  /** A HorizontalPodAutoscaler, which sets the number of pods instead of `replicas`. Default: none. */
  readonly autoscaling?: AutoscalingArgs | undefined;
  /** Seconds without progress after which Kubernetes reports a rollout as failed. Default: 600, as in Kubernetes. */
  readonly progressDeadlineSeconds?: pulumi.Input<number> | undefined;
  /** Host name of the Ingress rule. Default: none; the app answers every host without a rule. */
  readonly host?: pulumi.Input<string> | undefined;
  /** More hosts, each routed to the app like `host`. Requires a host without `*`. Default: none. */
  readonly aliases?: readonly pulumi.Input<string>[] | undefined;
  /**
   * Paths of the host that route to the app; among apps that share a host the longest path wins. Paths other than `/`
   * require a host without `*`. Default: `/`, everything.
   */
  readonly paths?: readonly RoutePath[] | undefined;
  /** Default: http only. */
  readonly tls?: WebAppTls | undefined;
  /** IngressClass. Default: `traefik`, which K3s brings. */
  readonly ingressClass?: pulumi.Input<string>;
  /** Whether to wait until the Ingress has an address. Default: true; use false where it may never get one. */
  readonly awaitAddress?: boolean;
  /** Arguments of the image's entrypoint. Default: the image's own. */
  readonly args?: pulumi.Input<pulumi.Input<string>[]>;
  /**
   * Environment in addition to what every app gets: APP_NAME, APP_VERSION, PORT, METRICS_PORT, POD_NAME, POD_NAMESPACE,
   * POD_IP, NODE_NAME.
   */
  readonly env?: Readonly<Record<string, pulumi.Input<string>>>;
  /** A ConfigMap mounted as files. Its name holds a hash of its content, so that a change rolls out new pods. Default: none. */
  readonly config?: WebAppFiles;
  /** A Secret mounted as files, readable only by the pod's group; otherwise like `config`. Default: none. */
  readonly secret?: WebAppFiles;
  /** Default: none; the root file system is read-only. */
  readonly volumes?: readonly WebAppVolume[];
  /**
   * Resource requests and limits of the app's container; autoscaling needs a CPU request. Default: what a quota counts for
   * every app.
   */
  readonly resources?: k8s.types.input.core.v1.ResourceRequirements;
  /**
   * KEY=VALUE, such as `dedicated=web`: prefers nodes with this label and tolerates the taint of the same key and value.
   * Default: any node without a taint. Either way the pods are spread over the nodes.
   */
  readonly nodes?: string | undefined;
  /** Whether all pods must run on one node, for hostPath volumes. Default: false, they are spread over the nodes. */
  readonly onOneNode?: boolean;
  /** Sidecars. Default: none. */
  readonly sidecars?: readonly WebAppContainer[];
  /** Init containers, run in order. Default: none. */
  readonly initContainers?: readonly WebAppContainer[];
}

/** Tells Pulumi not to wait for a load balancer's address. */
export const skipAwait = { "pulumi.com/skipAwait": "true" } as const;

/**
 * One web app behind the Ingress controller: a Deployment with a PodDisruptionBudget, a Service, an Ingress for a host or
 * some of its paths, and optionally a ConfigMap, a Secret and a HorizontalPodAutoscaler.
 * The pods run unprivileged: non-root, read-only root, no capabilities, no service-account token.
 */
export class WebApp extends pulumi.ComponentResource {
  /** Host name of the rule, or `*`. */
  readonly host: pulumi.Output<string>;
  /** The app's URL, such as `https://app.com/api`; with `*` as its host if it has none. */
  readonly url: pulumi.Output<string>;
  readonly deployment: k8s.apps.v1.Deployment;
  readonly canary: k8s.apps.v1.Deployment | undefined;
  readonly podDisruptionBudget: k8s.policy.v1.PodDisruptionBudget;
  readonly autoscaler: k8s.autoscaling.v2.HorizontalPodAutoscaler | undefined;
  readonly service: k8s.core.v1.Service;
  /** One for prefixes and one for exact paths, each only if there are any. */
  readonly ingresses: readonly k8s.networking.v1.Ingress[];
  readonly config: k8s.core.v1.ConfigMap | undefined;
  readonly secret: k8s.core.v1.Secret | undefined;

  constructor(name: string, args: WebAppArgs, opts?: pulumi.ComponentResourceOptions) {
    super("k3s-lab:apps:WebApp", name, {}, opts);
    const { appName = name, namespace = "default", autoscaling } = args;
    const labels = { "app.kubernetes.io/name": appName, "app.kubernetes.io/part-of": "k3s-lab" };
    const metadata = { name: appName, namespace, labels };
    const child = { parent: this };

    if (args.config) this.config = hashedConfigMap(name, metadata, args.config.files, this);
    if (args.secret) this.secret = hashedSecret(name, metadata, args.secret.files, this);

    const pods = (of: Record<string, string>, version = args.version) =>
      podSpec(appName, of, { ...args, version }, this);
    this.deployment = new k8s.apps.v1.Deployment(
      name,
      {
        metadata: { ...metadata, ...(autoscaling ? { annotations: { [autoscaledMark]: "true" } } : {}) },
        spec: deploymentSpec(labels, pods(labels), {
          ...args,
          replicas: autoscaling ? (autoscaling.min ?? 1) : (args.replicas ?? 1),
        }),
      },
      { ...child, ...(autoscaling ? leavesReplicas : {}) },
    );
    if (args.canary !== undefined) {
      // The Service selects the canary's pod too; the app's Deployment ignores pods that it does not own.
      const track = { ...labels, "k3s-lab/track": "canary" };
      this.canary = new k8s.apps.v1.Deployment(
        `${name}-canary`,
        {
          metadata: { ...metadata, name: `${appName}-canary` },
          spec: deploymentSpec(track, pods(labels, args.canary), { ...args, replicas: 1 }),
        },
        child,
      );
    }
    if (autoscaling) this.autoscaler = autoscalerOf(name, metadata, autoscaling, this.deployment, child);

    // A drain waits until an evicted pod is replaced. One pod may go: otherwise its node could never be drained.
    this.podDisruptionBudget = new k8s.policy.v1.PodDisruptionBudget(
      name,
      { metadata, spec: { maxUnavailable: 1, selector: { matchLabels: labels } } },
      child,
    );

    this.service = new k8s.core.v1.Service(
      name,
      {
        // The Deployment waits for the pods; the Ingress needs only the Service's name.
        metadata: { ...metadata, annotations: skipAwait },
        spec: { selector: labels, ports: [{ name: "http", port: 80, targetPort: "http" }] },
      },
      child,
    );

    this.ingresses = ingressesOf(args).map(
      (route) =>
        new k8s.networking.v1.Ingress(
          `${name}${route.suffix}`,
          {
            metadata: { ...metadata, ...ingressMetadata(appName, route, args) },
            spec: ingressSpec(route, args, this.service.metadata.name),
          },
          child,
        ),
    );

    this.host = pulumi.output(args.host ?? "*");
    this.url = urlOf(args);
    this.registerOutputs({ host: this.host, url: this.url });
  }
}

function deploymentSpec(
  labels: Record<string, string>,
  spec: k8s.types.input.core.v1.PodSpec,
  { replicas, progressDeadlineSeconds }: Pick<WebAppArgs, "replicas" | "progressDeadlineSeconds">,
): k8s.types.input.apps.v1.DeploymentSpec {
  return {
    ...(replicas === undefined ? {} : { replicas }),
    revisionHistoryLimit: 5,
    // Traefik updates endpoints every 2 s at most: it must know the new pod before the old one terminates.
    minReadySeconds: 2,
    ...(progressDeadlineSeconds === undefined ? {} : { progressDeadlineSeconds }),
    // A new pod must be ready before an old one terminates: a rollout loses no request.
    strategy: { type: "RollingUpdate", rollingUpdate: { maxSurge: 1, maxUnavailable: 0 } },
    selector: { matchLabels: labels },
    template: { metadata: { labels }, spec },
  };
}

function urlOf(args: WebAppArgs): pulumi.Output<string> {
  const { host = "*", tls } = args;
  const [first] = pathsOf(args);
  return pulumi.all([host, tls?.port ?? 443]).apply(([name, at]) => {
    const port = tls === undefined || at === 443 ? "" : `:${at}`;
    return `${tls ? "https" : "http"}://${name}${port}${first?.path ?? "/"}`;
  });
}

/** Priority of exact paths in Traefik: above all prefixes, whose priority is the length of their rule. */
const exactPriority = "1000";

/** The rule of an app without a host is 15 characters long; that of any other host at least 27. */
const wildcardPriority = "20";

const isWildcard = ({ host }: WebAppArgs): boolean => typeof host === "string" && host.startsWith("*.");

/** The app's Ingresses. @throws RangeError where Traefik would match one of them before another host's. */
function ingressesOf(args: WebAppArgs): Route[] {
  const routes = routesOf(args);
  const exact = routes.find(({ suffix }) => suffix === ".exact")?.rules[0];
  if (exact && (args.host === undefined || isWildcard(args)))
    throw new RangeError(`the path ${exact.path} needs a host without "*"`);
  return routes;
}

function ingressMetadata(appName: string, { suffix }: Route, args: WebAppArgs) {
  // Traefik matches the longest rule first. The rule of *.app.com is longer than that of a.app.com, which comes first in
  // Kubernetes.
  const priority = suffix === ".exact" ? exactPriority : isWildcard(args) ? wildcardPriority : undefined;
  const annotations = {
    ...((args.awaitAddress ?? true) ? {} : skipAwait),
    ...(priority ? { "traefik.ingress.kubernetes.io/router.priority": priority } : {}),
  };
  return { name: `${appName}${suffix}`, ...(Object.keys(annotations).length ? { annotations } : {}) };
}

function ingressSpec(
  { rules }: Route,
  { host, aliases = [], tls, ingressClass = "traefik" }: WebAppArgs,
  service: pulumi.Input<string>,
): k8s.types.input.networking.v1.IngressSpec {
  const backend = { service: { name: service, port: { name: "http" } } };
  const paths = rules.map((rule) => ({ ...rule, backend }));
  const hosts = host === undefined ? [] : [host, ...aliases];
  const http = { paths };
  return {
    ingressClassName: ingressClass,
    rules: hosts.length > 0 ? hosts.map((name) => ({ host: name, http })) : [{ http }],
    ...(tls ? { tls: [{ ...(hosts.length > 0 ? { hosts } : {}), secretName: tls.secretName }] } : {}),
  };
}

function podSpec(
  name: string,
  labels: Record<string, string>,
  args: WebAppArgs,
  { config, secret }: Pick<WebApp, "config" | "secret">,
): k8s.types.input.core.v1.PodSpec {
  const { sidecars = [], initContainers = [] } = args;
  const volumes = [
    ...(config ? [{ name: "config", configMap: { name: config.metadata.name } }] : []),
    ...(secret ? [{ name: "secret", secret: { secretName: secret.metadata.name, defaultMode: 0o440 } }] : []),
    ...(args.volumes ?? []).map(({ name, source }) => ({ ...source, name })),
  ];
  return {
    automountServiceAccountToken: false,
    enableServiceLinks: false,
    // The pod's group reads its Secret.
    securityContext: secret ? { ...unprivilegedPod, fsGroup: unprivilegedPod.runAsGroup } : unprivilegedPod,
    // A terminating pod accepts requests until no more arrive, and then finishes the open ones.
    terminationGracePeriodSeconds: graceSeconds,
    ...placement({ labels, nodes: args.nodes, together: args.onOneNode }),
    ...(initContainers.length ? { initContainers: initContainers.map(unprivileged) } : {}),
    containers: [appContainer(name, args), ...sidecars.map(unprivileged)],
    ...(volumes.length ? { volumes } : {}),
  };
}

const unprivileged = (container: WebAppContainer): Container => ({
  imagePullPolicy: "IfNotPresent",
  resources: podResources,
  securityContext: unprivilegedContainer,
  ...container,
});

function appContainer(name: string, args: WebAppArgs): Container {
  const field = (variable: string, fieldPath: string) => ({
    name: variable,
    valueFrom: { fieldRef: { fieldPath } },
  });
  const { config, secret, tls } = args;
  const mounts = [
    ...(config ? [{ name: "config", mountPath: config.mountPath, readOnly: true }] : []),
    ...(secret ? [{ name: "secret", mountPath: secret.mountPath, readOnly: true }] : []),
    ...(args.volumes ?? []).map(({ name, mountPath, readOnly }) => ({
      name,
      mountPath,
      ...(readOnly ? { readOnly } : {}),
    })),
  ];
  return {
    name: "web",
    image: args.image,
    imagePullPolicy: "IfNotPresent",
    ...(args.args ? { args: args.args } : {}),
    env: [
      { name: "APP_NAME", value: name },
      { name: "APP_VERSION", value: args.version },
      { name: "PORT", value: String(port) },
      { name: "METRICS_PORT", value: String(metricsPort) },
      field("POD_NAME", "metadata.name"),
      field("POD_NAMESPACE", "metadata.namespace"),
      field("POD_IP", "status.podIP"),
      field("NODE_NAME", "spec.nodeName"),
      ...(tls && tls.redirect !== false
        ? [{ name: "HTTPS_PORT", value: pulumi.output(tls.port ?? 443).apply(String) }]
        : []),
      ...Object.entries(args.env ?? {}).map(([variable, value]) => ({ name: variable, value })),
    ],
    ports: [
      { name: "http", containerPort: port },
      { name: "metrics", containerPort: metricsPort },
    ],
    // Probe a starting pod often, so that it serves as soon as it can, and a running one seldom.
    startupProbe: { httpGet: { path: "/healthz", port: "http" }, periodSeconds: 1, failureThreshold: 60 },
    readinessProbe: { httpGet: { path: "/readyz", port: "http" }, periodSeconds: 5 },
    livenessProbe: {
      httpGet: { path: "/healthz", port: "http" },
      periodSeconds: 10,
      failureThreshold: 3,
    },
    resources: args.resources ?? podResources,
    securityContext: unprivilegedContainer,
    ...(mounts.length ? { volumeMounts: mounts } : {}),
  };
}
