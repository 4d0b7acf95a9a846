import * as k8s from "@pulumi/kubernetes";
import * as pulumi from "@pulumi/pulumi";
import { podResources } from "../model/quota.ts";
import { unprivilegedContainer, unprivilegedPod } from "./unprivileged.ts";

const port = 8080;

/** Seconds from SIGTERM until a pod's last request is answered; the app's `graceSeconds`, which a test holds against this. */
export const graceSeconds = 50;

/** What a `WebApp` is made from. */
export interface WebAppArgs {
  /** Name of the app, of its Deployment, Service and Ingress. Default: the resource's name. */
  readonly appName?: string;
  /** The image that every node already holds, or can pull. */
  readonly image: pulumi.Input<string>;
  /** Shown on the page; a new version is rolled out without downtime. */
  readonly version: pulumi.Input<string>;
  /** Namespace of the app. Default: `default`. */
  readonly namespace?: pulumi.Input<string>;
  /** Number of pods. Default: 1. */
  readonly replicas?: pulumi.Input<number>;
  /** Host name of the Ingress rule. Default: none, the app answers every host that no other rule names. */
  readonly host?: pulumi.Input<string> | undefined;
  /** IngressClass. Default: `traefik`, which K3s brings. */
  readonly ingressClass?: pulumi.Input<string>;
  /** Whether the Ingress is there only once it has an address. Default: true; false where none may ever come. */
  readonly awaitAddress?: boolean;
}

/** Tells Pulumi not to wait for the address that a load balancer would give. */
export const skipAwait = { "pulumi.com/skipAwait": "true" } as const;

/**
 * One web app behind the Ingress controller: a Deployment and its PodDisruptionBudget, its Service, and an Ingress that
 * routes a host to it.
 * The pods run without privileges: non-root, read-only root, no capabilities, no service-account token.
 */
export class WebApp extends pulumi.ComponentResource {
  /** Host name of the rule, or `*`. */
  readonly host: pulumi.Output<string>;

  constructor(name: string, args: WebAppArgs, opts?: pulumi.ComponentResourceOptions) {
    super("k3s-lab:apps:WebApp", name, {}, opts);
    const { appName = name, namespace = "default" } = args;
    const labels = { "app.kubernetes.io/name": appName, "app.kubernetes.io/part-of": "k3s-lab" };
    const metadata = { name: appName, namespace, labels };

    new k8s.apps.v1.Deployment(
      name,
      {
        metadata,
        spec: {
          replicas: args.replicas ?? 1,
          revisionHistoryLimit: 5,
          // Traefik takes in endpoints every 2 s at most: it knows the new pod before the old one is told to end.
          minReadySeconds: 2,
          // A new pod must be ready before an old one goes: no request is lost in a rollout.
          strategy: { type: "RollingUpdate", rollingUpdate: { maxSurge: 1, maxUnavailable: 0 } },
          selector: { matchLabels: labels },
          template: { metadata: { labels }, spec: podSpec(appName, labels, args) },
        },
      },
      { parent: this },
    );

    // Whoever drains a node waits until the pod that went is replaced. One alone may go: else its node never drains.
    new k8s.policy.v1.PodDisruptionBudget(
      name,
      { metadata, spec: { maxUnavailable: 1, selector: { matchLabels: labels } } },
      { parent: this },
    );

    const service = new k8s.core.v1.Service(
      name,
      {
        // The Deployment waits for the pods; the Ingress needs no more of the Service than its name.
        metadata: { ...metadata, annotations: skipAwait },
        spec: { selector: labels, ports: [{ name: "http", port: 80, targetPort: "http" }] },
      },
      { parent: this },
    );

    const path = {
      path: "/",
      pathType: "Prefix",
      backend: { service: { name: service.metadata.name, port: { name: "http" } } },
    };
    const isWildcard = typeof args.host === "string" && args.host.startsWith("*.");
    const annotations = {
      ...((args.awaitAddress ?? true) ? {} : skipAwait),
      // Traefik goes by the longest rule, and that of *.app.com is longer than the one of a.app.com, which comes first in
      // Kubernetes. More than that of the app without a host, which is 15 characters long.
      ...(isWildcard ? { "traefik.ingress.kubernetes.io/router.priority": "20" } : {}),
    };
    new k8s.networking.v1.Ingress(
      name,
      {
        metadata: { ...metadata, ...(Object.keys(annotations).length ? { annotations } : {}) },
        spec: {
          ingressClassName: args.ingressClass ?? "traefik",
          rules: [{ ...(args.host === undefined ? {} : { host: args.host }), http: { paths: [path] } }],
        },
      },
      { parent: this },
    );

    this.host = pulumi.output(args.host ?? "*");
    this.registerOutputs({ host: this.host });
  }
}

function podSpec(
  name: string,
  labels: Record<string, string>,
  { image, version }: WebAppArgs,
): k8s.types.input.core.v1.PodSpec {
  const field = (variable: string, fieldPath: string) => ({
    name: variable,
    valueFrom: { fieldRef: { fieldPath } },
  });
  return {
    automountServiceAccountToken: false,
    enableServiceLinks: false,
    securityContext: unprivilegedPod,
    // A pod that ends still answers until nobody asks any more, and then finishes what it has begun.
    terminationGracePeriodSeconds: graceSeconds,
    topologySpreadConstraints: [
      {
        maxSkew: 1,
        topologyKey: "kubernetes.io/hostname",
        whenUnsatisfiable: "ScheduleAnyway",
        labelSelector: { matchLabels: labels },
      },
    ],
    containers: [
      {
        name: "web",
        image,
        imagePullPolicy: "IfNotPresent",
        env: [
          { name: "APP_NAME", value: name },
          { name: "APP_VERSION", value: version },
          { name: "PORT", value: String(port) },
          field("POD_NAME", "metadata.name"),
          field("POD_NAMESPACE", "metadata.namespace"),
          field("POD_IP", "status.podIP"),
          field("NODE_NAME", "spec.nodeName"),
        ],
        ports: [{ name: "http", containerPort: port }],
        // A pod that starts is asked often, so that it serves as soon as it can; afterwards seldom.
        startupProbe: { httpGet: { path: "/healthz", port: "http" }, periodSeconds: 1, failureThreshold: 60 },
        readinessProbe: { httpGet: { path: "/readyz", port: "http" }, periodSeconds: 5 },
        livenessProbe: {
          httpGet: { path: "/healthz", port: "http" },
          periodSeconds: 10,
          failureThreshold: 3,
        },
        resources: podResources,
        securityContext: unprivilegedContainer,
      },
    ],
  };
}
