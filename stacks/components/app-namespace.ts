import * as k8s from "@pulumi/kubernetes";
import * as pulumi from "@pulumi/pulumi";
import { controllerLabels } from "../model/config.ts";
import { hardLimits, podResources, type Quota } from "../model/quota.ts";

export interface AppNamespaceArgs {
  /** Total resources that its pods may use. Default: no limit. */
  readonly quota?: Quota | undefined;
  /** Whether its pods accept traffic only from the namespace itself and the Ingress controller. Default: true. */
  readonly isolated?: boolean;
  /** Namespace of the Ingress controller's pods. Default: kube-system, where K3s has its Traefik. */
  readonly ingressNamespace?: string;
  /** The IngressClass of that controller. Default: traefik. */
  readonly ingress?: string;
  /** Pod Security level: `restricted` admits only unprivileged pods, `privileged` any. Default: `restricted`. */
  readonly podSecurity?: "restricted" | "baseline" | "privileged";
}

/** A namespace for apps: a ResourceQuota, a NetworkPolicy for incoming traffic, and a Pod Security level. */
export class AppNamespace extends pulumi.ComponentResource {
  /** The namespace's name; resolves once the namespace exists. */
  readonly name: pulumi.Output<string>;

  constructor(name: string, args: AppNamespaceArgs = {}, opts?: pulumi.ComponentResourceOptions) {
    super("k3s-lab:apps:AppNamespace", name, {}, opts);
    const labels = { "app.kubernetes.io/part-of": "k3s-lab" };
    const namespace = new k8s.core.v1.Namespace(
      name,
      {
        metadata: {
          name,
          labels: { ...labels, "pod-security.kubernetes.io/enforce": args.podSecurity ?? "restricted" },
        },
      },
      { parent: this },
    );
    this.name = namespace.metadata.name;
    const metadata = { name, namespace: this.name, labels };

    const hard = hardLimits(args.quota ?? {});
    if (Object.keys(hard).length > 0) {
      new k8s.core.v1.ResourceQuota(name, { metadata, spec: { hard } }, { parent: this });
      new k8s.core.v1.LimitRange(
        name,
        {
          metadata,
          spec: {
            limits: [
              {
                type: "Container",
                // A quota rejects pods without requests and limits, and `kubectl run` sets none.
                defaultRequest: podResources.requests,
                default: podResources.limits,
              },
            ],
          },
        },
        { parent: this },
      );
    }

    if (args.isolated ?? true)
      new k8s.networking.v1.NetworkPolicy(
        name,
        {
          metadata,
          spec: {
            podSelector: {},
            policyTypes: ["Ingress"],
            ingress: [
              {
                from: [
                  { podSelector: {} },
                  {
                    // The API server labels every namespace with its name.
                    namespaceSelector: {
                      matchLabels: { "kubernetes.io/metadata.name": args.ingressNamespace ?? "kube-system" },
                    },
                    podSelector: { matchLabels: { ...controllerLabels(args.ingress ?? "traefik") } },
                  },
                ],
              },
            ],
          },
        },
        { parent: this },
      );
    this.registerOutputs({ name: this.name });
  }
}
