import { z } from "zod";

/** How many pods. */
export const podCount = z.int().min(0).max(100);

/** Pods that follow the load. */
const autoscaling = z
  .strictObject({
    min: z.int().min(1).max(100).default(1).describe("Pods at least, and at the start."),
    max: z.int().min(1).max(100).describe("Pods at most."),
    cpu: z
      .int()
      .min(1)
      .max(1000)
      .default(50)
      .describe(
        "CPU that the pods are to use on average, in percent of what they request (25m for each container): above it pods are added, below it they go.",
      ),
  })
  .superRefine(({ min, max }, context) => {
    if (max < min)
      context.addIssue({ code: "custom", path: ["max"], message: `at least ${min}, which is min` });
  });

/** Marks a Deployment whose replicas are an autoscaler's, so that it changes when they are not any more. */
export const autoscaledMark = "k3s-lab/autoscaled";

/** How a HorizontalPodAutoscaler chooses the number of an app's pods. */
export type Autoscaling = z.output<typeof autoscaling>;

/** How many pods an app has: a number, or what the load asks for within bounds. */
export const replicasSchema = z.union([podCount, autoscaling], {
  error: "a whole number, or { min, max, cpu } for pods that follow the load",
});

/** An app's pods: of one whose pods follow the load, the least. */
export interface Scale {
  readonly replicas: number;
  readonly autoscaling?: Autoscaling;
}

/** What a stack file says of an app's pods. */
export const scaleOf = (replicas: z.output<typeof replicasSchema>): Scale =>
  typeof replicas === "number" ? { replicas } : { replicas: replicas.min, autoscaling: replicas };

/** Pods of an app's canary. */
export const canaryPods = ({ canary }: { readonly canary?: string | undefined }): number =>
  canary === undefined ? 0 : 1;

/** The most pods of each of an app's Deployments, but for a rollout. */
export const podsOfDeployments = (app: Scale & { readonly canary?: string | undefined }): number[] => [
  mostPods(app),
  ...(app.canary === undefined ? [] : [canaryPods(app)]),
];

/** The most pods that an app has, but for a rollout and its canary. */
export const mostPods = ({ replicas, autoscaling }: Scale): number => autoscaling?.max ?? replicas;
