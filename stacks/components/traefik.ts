import * as k8s from "@pulumi/kubernetes";
import * as pulumi from "@pulumi/pulumi";
import { managedTraefik, rbacGroup } from "../model/config.ts";
import { traefikImage } from "../versions.ts";
import { AppNamespace } from "./app-namespace.ts";
import { unprivilegedContainer, unprivilegedPod } from "./unprivileged.ts";
import { skipAwait } from "./web-app.ts";

const { namespace, ingressClass, role: roleName, rules } = managedTraefik;

/** Container ports; below 1024 they would need a capability. */
const ports = { web: 8000, websecure: 8443, traefik: 9000 } as const;

/**
 * Seconds during which a terminating pod still accepts requests, because every node's kube-proxy must learn of it first, and
 * then finishes open ones: `/slow` of the web app takes up to 30.
 */
const endsAfter = { accepting: 10, open: 35 } as const;

export interface TraefikArgs {
  /** Image of Traefik 2. Default: the one that K3s uses, which its nodes already hold. */
  readonly image?: pulumi.Input<string>;
}

/**
 * The lab's Ingress controller, for clusters without one: Traefik in its own namespace, the IngressClass that it serves, and
 * a Service for a load balancer or node ports. It reads only Ingresses, no custom resources.
 */
export class Traefik extends pulumi.ComponentResource {
  /** The IngressClass; resolves once Traefik serves it. */
  readonly ingressClass: pulumi.Output<string>;

  constructor(name: string, args: TraefikArgs = {}, opts?: pulumi.ComponentResourceOptions) {
    super("k3s-lab:apps:Traefik", name, {}, opts);
    const child = { parent: this };
    const selector = { "app.kubernetes.io/name": "traefik", "app.kubernetes.io/part-of": "k3s-lab" };
    // Lets the stack tell this controller from another stack's.
    const labels = { ...selector, "app.kubernetes.io/instance": pulumi.getStack() };

    const { name: made } = new AppNamespace(namespace, { isolated: false }, child);
    const metadata = { name: "traefik", namespace: made, labels };
    const clusterWide = { name: roleName, labels };

    const account = new k8s.core.v1.ServiceAccount(name, { metadata }, child);
    const role = new k8s.rbac.v1.ClusterRole(name, { metadata: clusterWide, rules }, child);
    const binding = new k8s.rbac.v1.ClusterRoleBinding(
      name,
      {
        metadata: clusterWide,
        roleRef: { apiGroup: rbacGroup, kind: "ClusterRole", name: role.metadata.name },
        subjects: [{ kind: "ServiceAccount", name: account.metadata.name, namespace: made }],
      },
      child,
    );
    const served = new k8s.networking.v1.IngressClass(
      name,
      {
        metadata: { name: ingressClass, labels },
        spec: { controller: "traefik.io/ingress-controller" },
      },
      child,
    );
    new k8s.core.v1.Service(
      name,
      {
        // Without a load balancer implementation it never gets an address; its node ports still work.
        metadata: { ...metadata, annotations: skipAwait },
        spec: {
          type: "LoadBalancer",
          selector,
          ports: [
            { name: "web", port: 80, targetPort: "web" },
            { name: "websecure", port: 443, targetPort: "websecure" },
          ],
        },
      },
      child,
    );
    const deployment = new k8s.apps.v1.Deployment(
      name,
      {
        metadata,
        spec: {
          replicas: 1,
          strategy: { type: "RollingUpdate", rollingUpdate: { maxSurge: 1, maxUnavailable: 0 } },
          selector: { matchLabels: selector },
          template: {
            metadata: { labels },
            spec: {
              serviceAccountName: account.metadata.name,
              enableServiceLinks: false,
              terminationGracePeriodSeconds: endsAfter.accepting + endsAfter.open + 5,
              securityContext: unprivilegedPod,
              containers: [container(args.image ?? traefikImage)],
            },
          },
        },
      },
      // Without its RBAC rules it would start and see nothing.
      { ...child, dependsOn: [binding, served] },
    );
    this.ingressClass = pulumi.all([served.metadata.name, deployment.id]).apply(([className]) => className);
    this.registerOutputs({ ingressClass: this.ingressClass });
  }
}

function container(image: pulumi.Input<string>): k8s.types.input.core.v1.Container {
  const ping = { path: "/ping", port: "traefik" };
  return {
    name: "traefik",
    image,
    imagePullPolicy: "IfNotPresent",
    args: [
      // No telemetry from a lab.
      "--global.checknewversion=false",
      "--global.sendanonymoususage=false",
      ...Object.entries(ports).map(
        ([entryPoint, port]) => `--entrypoints.${entryPoint}.address=:${port}/tcp`,
      ),
      ...["web", "websecure"].flatMap((entryPoint) => [
        `--entrypoints.${entryPoint}.transport.lifecycle.requestacceptgracetimeout=${endsAfter.accepting}`,
        `--entrypoints.${entryPoint}.transport.lifecycle.gracetimeout=${endsAfter.open}`,
      ]),
      "--entrypoints.websecure.http.tls=true",
      "--ping=true",
      "--providers.kubernetesingress=true",
      `--providers.kubernetesingress.ingressclass=${ingressClass}`,
      `--providers.kubernetesingress.ingressendpoint.publishedservice=${namespace}/traefik`,
    ],
    ports: Object.entries(ports).map(([entryPoint, containerPort]) => ({ name: entryPoint, containerPort })),
    startupProbe: { httpGet: ping, periodSeconds: 1, failureThreshold: 60 },
    readinessProbe: { httpGet: ping, periodSeconds: 5 },
    livenessProbe: { httpGet: ping, periodSeconds: 10, failureThreshold: 3 },
    resources: { requests: { cpu: "50m", memory: "64Mi" }, limits: { memory: "256Mi" } },
    securityContext: unprivilegedContainer,
  };
}
