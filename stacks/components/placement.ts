import * as k8s from "@pulumi/kubernetes";
import * as pulumi from "@pulumi/pulumi";
import { priorityClassName } from "../model/config.ts";

type PodSpec = k8s.types.input.core.v1.PodSpec;

/** Scheduling preferences. */
interface PlacementArgs {
  /** The labels that select an app's pods. */
  readonly labels: Readonly<Record<string, string>>;
  /** KEY=VALUE: prefers nodes with this label and tolerates the taint of the same key and value. Default: any node. */
  readonly nodes?: string | undefined;
  /** Whether spreading two pods outweighs every other preference. Default: false. */
  readonly apart?: boolean;
  /** Whether all pods must run on one node, for hostPath volumes. Only this is a hard requirement. Default: false. */
  readonly together?: boolean | undefined;
}

const weight = 100;
const topologyKey = "kubernetes.io/hostname";

/**
 * Scheduling part of a pod specification. Everything but `together` is a preference: on a single node, or where only one is
 * left, the pods run too.
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
 * Lets the scheduler place a database's pods before those of the web apps, and a node under memory pressure end them later.
 * No pod is preempted for them: the cluster may run what is not the lab's.
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
