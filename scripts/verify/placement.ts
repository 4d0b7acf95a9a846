import {
  type KubernetesApi,
  type Node,
  type PersistentVolume,
  type Pod,
  type Taint,
  taintInWords,
} from "../../stacks/lib/kubernetes.ts";
import type { OnCluster } from "../../stacks/model/config.ts";
import { parseQuantity } from "../../stacks/model/quota.ts";
import type { CheckSpec } from "./check.ts";
import { isAppPod } from "./from-pods.ts";

/** Pods that share one set of scheduling rules. */
interface Workload {
  readonly name: string;
  readonly namespace: string;
  /** The label of the nodes that they prefer. */
  readonly nodes?: string | undefined;
  /** For the database, whose pods repel each other and are scheduled first: the ordinal of the primary. */
  readonly primary?: number;
}

/** A cluster's pods and nodes. */
interface Places {
  readonly nodes: readonly Node[];
  readonly pods: readonly Pod[];
  /** Whether these are the pods of all namespaces, so that the nodes' free resources are known. */
  readonly isWhole: boolean;
  readonly volumes: readonly PersistentVolume[];
}

/** The workloads to report: all of the guest book, and elsewhere those with a preference. */
const workloadsOf = (config: OnCluster): Workload[] =>
  "database" in config
    ? [...config.apps, { ...config.database, name: "db", namespace: config.namespace }]
    : config.apps.filter(({ nodes }) => nodes);

/** Reports where the scheduler has placed pods and why, and whether a rule is broken that could be satisfied. */
export async function checkPlacement(
  config: OnCluster,
  deploy: string,
  answer: Promise<KubernetesApi>,
): Promise<CheckSpec[]> {
  const workloads = workloadsOf(config);
  const asked =
    workloads.length > 0 ? askPlaces(await answer.catch(() => undefined), config, workloads) : undefined;
  const places = await asked?.catch(() => undefined);
  return workloads.map((workload) => {
    const { namespace, name } = workload;
    const kubectl = `kubectl --namespace ${namespace}`;
    const about = {
      id: `${namespace === config.namespace ? "" : `${namespace}/`}${name}/placement`,
      title: `${name}: where its pods are, and why`,
      hint: `See what the scheduler said: \`${kubectl} describe pods --selector app.kubernetes.io/name=${name}\`. ${deploy}`,
    };
    if (places === undefined)
      return { ...about, expected: "its pods on nodes", actual: async () => String(await asked) };
    const found = describePlaces(workload, places);
    const fault = faultOf(workload, places);
    // `lab up` does not move pods: it reports such a fault without failing.
    return fault
      ? { ...about, ...fault, actual: async () => ({ found, ok: false, isPast: true }) }
      : { ...about, expected: found, actual: async () => found };
  });
}

async function askPlaces(
  api: KubernetesApi | undefined,
  { cluster }: OnCluster,
  workloads: readonly Workload[],
): Promise<Places> {
  if (api === undefined) throw new Error("the API server does not answer");
  // An external cluster may have any number of pods, or not allow listing them.
  const isWhole = "stack" in cluster;
  const namespaces = [...new Set(workloads.map(({ namespace }) => namespace))];
  const [nodes, pods, volumes] = await Promise.all([
    api.nodes(),
    isWhole ? api.pods() : Promise.all(namespaces.map((one) => api.pods(one))).then((all) => all.flat()),
    api.persistentVolumes().catch(() => []),
  ]);
  return { nodes, pods, volumes, isWhole };
}

const podsOf = ({ namespace, name }: Workload, { pods }: Places): Pod[] =>
  pods.filter(
    (pod) =>
      pod.metadata.namespace === namespace &&
      pod.metadata.deletionTimestamp === undefined &&
      pod.spec.nodeName !== undefined &&
      pod.status.phase === "Running" &&
      isAppPod(pod, [{ name }]),
  );

/** The taints that repel pods. */
const strictTaints = ({ spec }: Node): Taint[] =>
  (spec?.taints ?? []).filter(({ effect }) => effect !== "PreferNoSchedule");

/** https://kubernetes.io/docs/concepts/scheduling-eviction/taint-and-toleration/ */
const tolerates = ({ spec }: Pod, taint: Taint): boolean =>
  (spec.tolerations ?? []).some(
    ({ key, operator, value = "", effect }) =>
      (key === undefined ? operator === "Exists" : key === taint.key) &&
      (operator === "Exists" || value === (taint.value ?? "")) &&
      (effect === undefined || effect === taint.effect),
  );

const requested = ({ spec }: Pod, what: string): number =>
  spec.containers.reduce(
    (sum, { resources }) => sum + (parseQuantity(resources?.requests[what] ?? "") ?? 0),
    0,
  );

/** Whether the scheduler would place a pod on a node, ignoring its volume's location. */
function fits(pod: Pod, node: Node, { pods }: Places): boolean {
  const { conditions, allocatable } = node.status;
  const isUp = conditions.some(({ type, status }) => type === "Ready" && status === "True");
  const there = pods.filter(
    (one) => one !== pod && one.spec.nodeName === node.metadata.name && one.status.phase === "Running",
  );
  const hasRoom = ["cpu", "memory"].every(
    (what) =>
      [pod, ...there].reduce((sum, one) => sum + requested(one, what), 0) <=
      (parseQuantity(allocatable?.[what] ?? "") ?? Number.POSITIVE_INFINITY),
  );
  const isOpen = !node.spec?.unschedulable && strictTaints(node).every((taint) => tolerates(pod, taint));
  return isUp && isOpen && hasRoom;
}

/** A pod's node-local volume. */
const volumeOf = (
  { metadata: { namespace }, spec }: Pod,
  { volumes }: Pick<Places, "volumes">,
): PersistentVolume | undefined =>
  volumes.find(({ spec: { claimRef, nodeAffinity } }) => {
    const claims = (spec.volumes ?? []).map(({ persistentVolumeClaim }) => persistentVolumeClaim?.claimName);
    const terms = nodeAffinity?.required?.nodeSelectorTerms ?? [];
    const isThere = terms.some(({ matchExpressions }) =>
      matchExpressions.some(({ values }) => values.includes(spec.nodeName ?? "")),
    );
    return isThere && claimRef?.namespace === namespace && claims.includes(claimRef?.name ?? "");
  });

/** Whether a node existed when a pod's place was decided: with its node-local volume, if it has one. */
const wasThere = ({ metadata: { creationTimestamp = "" } }: Node, pod: Pod, places: Places): boolean =>
  creationTimestamp < (volumeOf(pod, places)?.metadata.creationTimestamp ?? "9");

const hasLabel = ({ metadata }: Node, label: string): boolean => {
  const [key = "", value] = label.split("=");
  return metadata.labels[key] === value;
};

/** The nodes of a workload's pods, each with its reasons; then the reasons common to all. */
function describePlaces(workload: Workload, places: Places): string {
  const pods = podsOf(workload, places);
  if (pods.length === 0) return "no pod has a node";
  const byNode = places.nodes.flatMap((node) => {
    const here = pods.filter(({ spec }) => spec.nodeName === node.metadata.name);
    return here.length === 0
      ? []
      : [`${inWords(workload, here)} on ${node.metadata.name}${because(workload, here, node, places)}`];
  });
  const open = places.nodes.filter((node) => pods.some((pod) => fits(pod, node, places)));
  const used = new Set(pods.map(({ spec }) => spec.nodeName)).size;
  const spread =
    open.length > 1 && pods.length > 1 ? `; on ${used} of ${Math.max(open.length, used)} nodes that fit` : "";
  const single = open.length <= 1 && used === 1 ? "; no other node fits" : "";
  const labelled = places.nodes.some((node) => hasLabel(node, workload.nodes ?? ""));
  const missing = workload.nodes && !labelled ? `; no node has ${workload.nodes}` : "";
  const priority = Math.max(...pods.map(({ spec }) => spec.priority ?? 0));
  return [byNode.join(", "), spread, single, missing, ...(priority ? [`; priority ${priority}`] : [])].join(
    "",
  );
}

/** A StatefulSet's pods have stable names. */
const inWords = ({ primary }: Workload, pods: readonly Pod[]): string =>
  primary === undefined
    ? `${pods.length}`
    : pods
        .map(({ metadata }) => metadata.name)
        .sort()
        .join(" and ");

function because({ nodes }: Workload, pods: readonly Pod[], node: Node, places: Places): string {
  const reasons = [
    ...(pods.some((pod) => volumeOf(pod, places)) ? ["volume"] : []),
    ...(nodes && hasLabel(node, nodes) ? [`label ${nodes}`] : []),
    ...strictTaints(node)
      .filter((taint) => pods.some((pod) => tolerates(pod, taint)))
      .map((taint) => `tolerates ${taintInWords(taint)}`),
  ];
  return reasons.length ? ` (${reasons.join(", ")})` : "";
}

/** A rule of the database that is broken but satisfiable; other workloads only have preferences at scheduling time. */
function faultOf(workload: Workload, places: Places): Pick<CheckSpec, "expected" | "hint"> | undefined {
  const { primary, namespace } = workload;
  if (primary === undefined) return undefined;
  const pods = podsOf(workload, places);
  const replica = pods.find(({ metadata: { name } }) => name === `db-${1 - primary}`);
  const together = places.isWhole && new Set(pods.map(({ spec }) => spec.nodeName)).size < pods.length;
  const other = places.nodes.find(
    (node) =>
      replica &&
      node.metadata.name !== replica.spec.nodeName &&
      fits(replica, node, places) &&
      wasThere(node, replica, places),
  );
  if (together && replica && other) {
    const { name } = replica.metadata;
    const kubectl = `kubectl --namespace ${namespace}`;
    return {
      expected: `its pods on two nodes, because ${name} fits on ${other.metadata.name} too`,
      hint: `Losing that node would lose both copies. ${name} is a replica and is recreated where there is room: once the check "what the replica has" passes, \`${kubectl} delete persistentvolumeclaim data-${name} --wait=false\`, then \`${kubectl} delete pod ${name}\`.`,
    };
  }
  return pods.some(({ spec }) => (spec.priority ?? 0) === 0)
    ? {
        expected: "a priority above the usual 0",
        hint: `Its pods must have the PriorityClass db.${namespace}: \`kubectl get priorityclasses\`. Recreated pods get it.`,
      }
    : undefined;
}
