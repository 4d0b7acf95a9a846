import * as k8s from "@pulumi/kubernetes";
import * as pulumi from "@pulumi/pulumi";
import { priorityClassName } from "../model/config.ts";

type PodSpec = k8s.types.input.core.v1.PodSpec;

/** Which nodes the scheduler is to choose. */
interface PlacementArgs {
  /** The labels by which an app's pods are known. */
  readonly labels: Readonly<Record<string, string>>;
  /** KEY=VALUE: nodes with this label are preferred, and the taint of the same key and value tolerated. Default: any node. */
  readonly nodes?: string | undefined;
  /** Whether two pods keep apart even where all else speaks for one node. Default: false. */
  readonly apart?: boolean;
  /** Whether all pods are on one node, as folders of a node ask for. This alone is required. Default: false. */
  readonly together?: boolean | undefined;
}

const weight = 100;
const topologyKey = "kubernetes.io/hostname";

/**
 * Where pods are to run, as their specification has it. All of it is preferred, nothing but `together` required: on a single
 * node, or where only one is left, they run too.
 */
export function placement({
  labels: matchLabels,
  nodes,
  apart = false,
  together = false,
}: PlacementArgs): Pick<PodSpec, "topologySpreadConstraints" | "affinity" | "tolerations"> {
  const labelSelector = { matchLabels };
  const [key = "", value = ""] = nodes?.split("=") ?? [];
  const preference = { matchExpressions: [{ key, operator: "In", values: [value] }] };
  const affinity = {
    ...(nodes && {
      nodeAffinity: { preferredDuringSchedulingIgnoredDuringExecution: [{ weight, preference }] },
    }),
    ...(apart && {
      podAntiAffinity: {
        preferredDuringSchedulingIgnoredDuringExecution: [
          { weight, podAffinityTerm: { topologyKey, labelSelector } },
        ],
      },
    }),
    ...(together && {
      podAffinity: { requiredDuringSchedulingIgnoredDuringExecution: [{ topologyKey, labelSelector }] },
    }),
  };
  return {
    topologySpreadConstraints: [
      { maxSkew: 1, topologyKey, whenUnsatisfiable: "ScheduleAnyway", labelSelector },
    ],
    ...(nodes || apart || together ? { affinity } : {}),
    ...(nodes ? { tolerations: [{ key, operator: "Equal", value }] } : {}),
  };
}

/**
 * What makes the scheduler take a database's pods before those of the web apps, and a node that lacks memory end them later.
 * Nobody's pods are evicted for them: the cluster may run what is not the lab's.
 */
export const databasePriority = (
  name: string,
  {
    name: database,
    namespace,
    labels,
  }: { name: string; namespace: pulumi.Input<string>; labels: Record<string, string> },
  opts: pulumi.CustomResourceOptions,
): k8s.scheduling.v1.PriorityClass =>
  new k8s.scheduling.v1.PriorityClass(
    name,
    {
      metadata: { name: pulumi.output(namespace).apply((home) => priorityClassName(database, home)), labels },
      value: 1000,
      preemptionPolicy: "Never",
      description: "A database, before what asks it.",
    },
    opts,
  );
