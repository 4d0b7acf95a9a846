import { type KubernetesApi, type Pod, podState } from "../../stacks/lib/kubernetes.ts";

/** Maximum length of a warning; some end with a whole configuration. */
const longest = 200;

/**
 * Why pods are not ready, by Kubernetes: the state of each, and its last warning. The state
 * `ContainerCreating` alone does not explain anything.
 */
export async function whyLate(
  api: Pick<KubernetesApi, "events">,
  namespace: string,
  late: readonly Pod[],
): Promise<readonly string[]> {
  if (late.length === 0) return [];
  const events = await api.events(namespace).catch(() => []);
  return late.map((pod) => {
    const { name } = pod.metadata;
    const about = events.filter(({ type, involvedObject: { kind, name: which } }) => {
      return type === "Warning" && kind === "Pod" && which === name;
    });
    const last = about.sort((one, other) => timeOf(one).localeCompare(timeOf(other))).at(-1);
    const why = last && `${last.reason}: ${last.message?.split("\n", 1)[0]?.slice(0, longest)}`;
    return `${name} is ${podState(pod)}${why ? ` (${why})` : ""}`;
  });
}

type Event = Awaited<ReturnType<KubernetesApi["events"]>>[number];

/** Newer events have their time in another field. */
const timeOf = ({ lastTimestamp, eventTime }: Event): string => lastTimestamp ?? eventTime ?? "";
