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

/** Port of the metrics. The Service has no such port, so that no Ingress leads there. */
const metricsPort = 9100;

/** Seconds from SIGTERM until a pod's last request is answered; the app's `graceSeconds`, which a test holds against this. */
export const graceSeconds = 50;

/** Files that the app's container finds in a folder of its own. */
interface WebAppFiles {
  /** The folder, such as `/etc/my-app`. */
  readonly mountPath: string;
  readonly files: Files;
}

/** Something that the app's container writes to or reads from. */
interface WebAppVolume {
  /** A DNS label, unique in the pod; sidecars mount it by this name. Not `config` and not `secret`. */
  readonly name: string;
  /** Folder of the app's container. */
  readonly mountPath: string;
  /** Default: false. */
  readonly readOnly?: boolean;
  /** What it is, such as `{ emptyDir: {} }` or `{ persistentVolumeClaim: { claimName } }`. */
  readonly source: Omit<k8s.types.input.core.v1.Volume, "name">;
}

/** A container beside the app's. What is not given is as for the app's own: no privileges, small resources. */
type WebAppContainer = Container & { readonly name: string };

/** How an app is reached by https. */
export interface WebAppTls {
  /** A Secret of type `kubernetes.io/tls` in the app's namespace, for its host. */
  readonly secretName: pulumi.Input<string>;
  /** Port at which browsers reach the Ingress controller's https. Default: 443. */
  readonly port?: pulumi.Input<number> | undefined;
  /** Whether the app is told, by `HTTPS_PORT`, to send those who come by http to https. Default: true. */
  readonly redirect?: boolean | undefined;
}

/** What a `WebApp` is made from. */
export interface WebAppArgs {
  /** Name of the app, of its Deployment, Service and Ingress. Default: the resource's name. */
  readonly appName?: string;
  /** The image that every node already holds, or can pull. It answers `/healthz` and `/readyz` on the port in `PORT`, and may have `/metrics` on that in `METRICS_PORT`. */
  readonly image: pulumi.Input<string>;
  /** Shown on the page; a new version is rolled out without downtime. */
  readonly version: pulumi.Input<string>;
  /** A further version, which one pod more runs: the Service leads its share of the requests there. Default: none. */
  readonly canary?: pulumi.Input<string> | undefined;
  /** Namespace of the app. Default: `default`. */
  readonly namespace?: pulumi.Input<string>;
  /** Number of pods. Default: 1. */
  readonly replicas?: pulumi.Input<number>;
  /** A HorizontalPodAutoscaler, which chooses the number of pods in place of `replicas`. Default: none. */
  readonly autoscaling?: AutoscalingArgs | undefined;
  /** Seconds without progress after which Kubernetes says that a rollout has failed. Default: 600, Kubernetes' own. */
  readonly progressDeadlineSeconds?: pulumi.Input<number> | undefined;
  /** Host name of the Ingress rule. Default: none, the app answers every host that no other rule names. */
  readonly host?: pulumi.Input<string> | undefined;
  /** More hosts, of which each leads to the app as `host` does. Need a host without `*`. Default: none. */
  readonly aliases?: readonly pulumi.Input<string>[] | undefined;
  /**
   * The paths of the host that lead to the app; of several apps at one host the longest decides. Others than `/` need a
   * host without `*`. Default: `/` and all below it.
   */
  readonly paths?: readonly RoutePath[] | undefined;
  /** Default: http alone. */
  readonly tls?: WebAppTls | undefined;
  /** IngressClass. Default: `traefik`, which K3s brings. */
  readonly ingressClass?: pulumi.Input<string>;
  /** Whether the Ingress is there only once it has an address. Default: true; false where none may ever come. */
  readonly awaitAddress?: boolean;
  /** Arguments of the image's entrypoint. Default: the image's own. */
  readonly args?: pulumi.Input<pulumi.Input<string>[]>;
  /** Environment beside what every app is told: APP_NAME, APP_VERSION, PORT, METRICS_PORT, POD_NAME, POD_NAMESPACE, POD_IP, NODE_NAME. */
  readonly env?: Readonly<Record<string, pulumi.Input<string>>>;
  /** A ConfigMap as files. Its name carries a hash of its content, so that another content rolls new pods out. Default: none. */
  readonly config?: WebAppFiles;
  /** A Secret as files, which the pod's own group alone reads; else as `config`. Default: none. */
  readonly secret?: WebAppFiles;
  /** Default: none; the root file system is read-only. */
  readonly volumes?: readonly WebAppVolume[];
  /** What the app's container reserves and may use; autoscaling needs a request of CPU. Default: what a quota counts for every app. */
  readonly resources?: k8s.types.input.core.v1.ResourceRequirements;
  /**
   * KEY=VALUE, such as `dedicated=web`: the pods prefer nodes with this label, and tolerate the taint of the same key and
   * value. Default: any node without a taint. Either way they are spread over the nodes.
   */
  readonly nodes?: string | undefined;
  /** Whether all pods are on one node, as folders of a node ask for. Default: false, they are spread over the nodes. */
  readonly onOneNode?: boolean;
  /** Containers that run beside the app's, from its start to its end. Default: none. */
  readonly sidecars?: readonly WebAppContainer[];
  /** Containers that run before the others, one after the other, each to its end. Default: none. */
  readonly initContainers?: readonly WebAppContainer[];
}

/** Tells Pulumi not to wait for the address that a load balancer would give. */
export const skipAwait = { "pulumi.com/skipAwait": "true" } as const;

/**
 * One web app behind the Ingress controller: a Deployment and its PodDisruptionBudget, its Service, the Ingress that routes
 * a host, or some of its paths, to it, and where asked for a ConfigMap, a Secret and a HorizontalPodAutoscaler.
 * The pods run without privileges: non-root, read-only root, no capabilities, no service-account token.
 */
export class WebApp extends pulumi.ComponentResource {
  /** Host name of the rule, or `*`. */
  readonly host: pulumi.Output<string>;
  /** Where it is found, such as `https://app.com/api`; with `*` for its host where it has none. */
  readonly url: pulumi.Output<string>;
  readonly deployment: k8s.apps.v1.Deployment;
  readonly canary: k8s.apps.v1.Deployment | undefined;
  readonly podDisruptionBudget: k8s.policy.v1.PodDisruptionBudget;
  readonly autoscaler: k8s.autoscaling.v2.HorizontalPodAutoscaler | undefined;
  readonly service: k8s.core.v1.Service;
  /** One for its prefixes, one for its exact paths; each where there are any. */
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
      // The Service takes its pod for one of the app's; the app's own Deployment leaves alone what another one made.
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

    // Whoever drains a node waits until the pod that went is replaced. One alone may go: else its node never drains.
    this.podDisruptionBudget = new k8s.policy.v1.PodDisruptionBudget(
      name,
      { metadata, spec: { maxUnavailable: 1, selector: { matchLabels: labels } } },
      child,
    );

    this.service = new k8s.core.v1.Service(
      name,
      {
        // The Deployment waits for the pods; the Ingress needs no more of the Service than its name.
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
    // Traefik takes in endpoints every 2 s at most: it knows the new pod before the old one is told to end.
    minReadySeconds: 2,
    ...(progressDeadlineSeconds === undefined ? {} : { progressDeadlineSeconds }),
    // A new pod must be ready before an old one goes: no request is lost in a rollout.
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

/** Where Ingresses of exact paths stand in Traefik's order: before all prefixes, whose rules are as long as their text. */
const exactPriority = "1000";

/** Of the app without a host the rule is 15 characters long; that of any other host at least 27. */
const wildcardPriority = "20";

const isWildcard = ({ host }: WebAppArgs): boolean => typeof host === "string" && host.startsWith("*.");

/** The app's Ingresses. @throws RangeError where Traefik would ask one of them before another host's. */
function ingressesOf(args: WebAppArgs): Route[] {
  const routes = routesOf(args);
  const exact = routes.find(({ suffix }) => suffix === ".exact")?.rules[0];
  if (exact && (args.host === undefined || isWildcard(args)))
    throw new RangeError(`the path ${exact.path} needs a host without "*"`);
  return routes;
}

function ingressMetadata(appName: string, { suffix }: Route, args: WebAppArgs) {
  // Traefik goes by the longest rule, and that of *.app.com is longer than the one of a.app.com, which comes first in
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
    // The group of the pod reads its Secret.
    securityContext: secret ? { ...unprivilegedPod, fsGroup: unprivilegedPod.runAsGroup } : unprivilegedPod,
    // A pod that ends still answers until nobody asks any more, and then finishes what it has begun.
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
    // A pod that starts is asked often, so that it serves as soon as it can; afterwards seldom.
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
