import * as k8s from "@pulumi/kubernetes";
import type * as pulumi from "@pulumi/pulumi";

/** Autoscaling settings of an app. */
export interface AutoscalingArgs {
  /** Minimum number of pods, and the initial one. Default: 1. */
  readonly min?: number;
  /** Maximum number of pods. */
  readonly max: number;
  /** Target average CPU utilization, in percent of the pods' request. Default: 50. */
  readonly cpu?: number;
}

/**
 * Options of a Deployment whose replicas an autoscaler controls: Pulumi sets them when it creates the Deployment, or where
 * it had none (`labelling`), and ignores them from then on.
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
        // CPU is measured every 15 s. Kubernetes' default is to wait five minutes before it scales down, too long to watch.
        behavior: { scaleDown: { stabilizationWindowSeconds: 30 } },
      },
    },
    opts,
  );
