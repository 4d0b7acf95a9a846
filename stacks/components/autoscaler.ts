import * as k8s from "@pulumi/kubernetes";
import type * as pulumi from "@pulumi/pulumi";

/** How many pods an app has by its load. */
export interface AutoscalingArgs {
  /** Pods at least, and at the start. Default: 1. */
  readonly min?: number;
  /** Pods at most. */
  readonly max: number;
  /** CPU that the pods are to use on average, in percent of what they request. Default: 50. */
  readonly cpu?: number;
}

/**
 * Options of a Deployment whose replicas are an autoscaler's: Pulumi gives them when it makes the Deployment, or where it had
 * none (`labelling`), and leaves them as they are from then on.
 */
export const leavesReplicas: pulumi.CustomResourceOptions = { ignoreChanges: ["spec.replicas"] };

/** The HorizontalPodAutoscaler of a Deployment. It needs metrics-server, which K3s brings. */
export const autoscalerOf = (
  name: string,
  metadata: { readonly name: string; readonly namespace: pulumi.Input<string> },
  { min = 1, max, cpu = 50 }: AutoscalingArgs,
  deployment: k8s.apps.v1.Deployment,
  opts: pulumi.CustomResourceOptions,
): k8s.autoscaling.v2.HorizontalPodAutoscaler =>
  new k8s.autoscaling.v2.HorizontalPodAutoscaler(
    name,
    {
      metadata,
      spec: {
        scaleTargetRef: { apiVersion: "apps/v1", kind: "Deployment", name: deployment.metadata.name },
        minReplicas: min,
        maxReplicas: max,
        metrics: [
          {
            type: "Resource",
            resource: { name: "cpu", target: { type: "Utilization", averageUtilization: cpu } },
          },
        ],
        // CPU is measured every 15 s. Kubernetes would wait for five minutes until pods go, which nobody watches.
        behavior: { scaleDown: { stabilizationWindowSeconds: 30 } },
      },
    },
    opts,
  );
