import { z } from "zod";

/** A number of pods. */
export const podCount = z.int().min(0).max(100);

/** Autoscaled pods. */
const autoscaling = z
  .strictObject({
    min: z.int().min(1).max(100).default(1).describe("Minimum number of pods, and the initial one."),
    max: z.int().min(1).max(100).describe("Maximum number of pods."),
    cpu: z
      .int()
      .min(1)
      .max(1000)
      .default(50)
      .describe(
        "Target for the pods' average CPU usage, in percent of their requests (25m per container): above it pods are added, below it they are removed.",
      ),
  })
  .superRefine(({ min, max }, context) => {
    if (max < min)
      context.addIssue({ code: "custom", path: ["max"], message: `at least ${min}, which is min` });
  });

/** Marks a Deployment whose replicas an autoscaler controls, so that the Deployment changes when that ends. */
export const autoscaledMark = "k3s-lab/autoscaled";

/** Settings of an app's HorizontalPodAutoscaler. */
export type Autoscaling = z.output<typeof autoscaling>;

/** An app's number of pods: fixed, or autoscaled within bounds. */
export const replicasSchema = z.union([podCount, autoscaling], {
  error: "a whole number, or { min, max, cpu } for pods that follow the load",
});

/** An app's number of pods; the minimum if autoscaled. */
export interface Scale {
  readonly replicas: number;
  readonly autoscaling?: Autoscaling;
}

/** An app's replicas in a stack file. */
export const scaleOf = (replicas: z.output<typeof replicasSchema>): Scale =>
  typeof replicas === "number" ? { replicas } : { replicas: replicas.min, autoscaling: replicas };

/** Number of pods of an app's canary. */
export const canaryPods = ({ canary }: { readonly canary?: string | undefined }): number =>
  canary === undefined ? 0 : 1;

/** The maximum number of pods of each of an app's Deployments, without a rollout's. */
export const podsOfDeployments = (app: Scale & { readonly canary?: string | undefined }): number[] => [
  mostPods(app),
  ...(app.canary === undefined ? [] : [canaryPods(app)]),
];

/** An app's maximum number of pods, without a rollout's and its canary's. */
export const mostPods = ({ replicas, autoscaling }: Scale): number => autoscaling?.max ?? replicas;
