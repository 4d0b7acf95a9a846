import type { Autoscaler, KubernetesApi } from "../../stacks/lib/kubernetes.ts";
import type { App } from "../../stacks/model/config.ts";
import type { CheckSpec } from "./check.ts";

/** Milliseconds for the first measurement of new pods: there is one every 15 s. */
const measuredWithin = 120_000;

/** The pods' average CPU use in percent of their requests; undefined if not measured. */
export const cpuOf = ({ status }: Autoscaler): number | undefined =>
  status.currentMetrics.find(({ resource }) => resource?.name === "cpu")?.resource?.current
    .averageUtilization;

const inWords = (min: number, max: number, cpu: number | undefined): string =>
  `${min} to ${max} replicas at ${cpu ?? "any"} % CPU`;

/** Checks an app's autoscaler: that it matches the stack file, is able to scale, and has CPU metrics. */
export function checkAutoscaler(
  path: string,
  { name, namespace, autoscaling }: App,
  deploy: string,
  { api }: { readonly api: Promise<KubernetesApi> },
): CheckSpec[] {
  if (!autoscaling) return [];
  const { min, max, cpu } = autoscaling;
  const expected = inWords(min, max, cpu);
  const kubectl = `kubectl --namespace ${namespace}`;
  return [
    {
      id: `${path}/autoscaler`,
      title: `${path}: its HorizontalPodAutoscaler`,
      expected: `${expected}, which is measured within ${measuredWithin / 60_000} minutes`,
      actual: async () => {
        const all = await (await api).horizontalPodAutoscalers(namespace);
        const one = all.find(({ metadata }) => metadata.name === name);
        if (!one) return "there is none";
        const { minReplicas, maxReplicas, metrics } = one.spec;
        const target = metrics.find(({ resource }) => resource?.name === "cpu")?.resource?.target;
        const found = inWords(minReplicas, maxReplicas, target?.averageUtilization);
        const { words, ok } = stateOf(one);
        return { found: `${found}, ${words}`, ok: ok && found === expected };
      },
      hint: `${deploy} See its status and the measurements: \`${kubectl} describe hpa ${name}\`, \`${kubectl} top pods\`.`,
    },
  ];
}

/** An autoscaler's status. It has no metrics of new pods for a while. */
function stateOf(autoscaler: Autoscaler): { readonly words: string; readonly ok: boolean } {
  const { metadata, status } = autoscaler;
  const wrong = status.conditions.find(
    ({ type, status: value }) => ["AbleToScale", "ScalingActive"].includes(type) && value !== "True",
  );
  const cpu = cpuOf(autoscaler);
  if (wrong === undefined && cpu !== undefined) return { words: `which is ${cpu} %`, ok: true };
  const since = Date.parse(wrong?.lastTransitionTime ?? metadata.creationTimestamp ?? "");
  if (Date.now() - since < measuredWithin) return { words: "which is not measured yet", ok: true };
  return { words: `which is not measured${wrong?.message ? `: ${wrong.message}` : ""}`, ok: false };
}
