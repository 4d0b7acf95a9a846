import {
  isReady,
  type KubernetesApi,
  type Node,
  type Pod,
  type Service,
} from "../../stacks/lib/kubernetes.ts";
import type { App, OnCluster } from "../../stacks/model/config.ts";
import { pathsOf } from "../../stacks/model/routes.ts";
import { askOnce, type CheckSpec } from "./check.ts";
import { isServiceLb } from "./cluster.ts";
import type { Answers, Questions } from "./in-pod.ts";
import type { AskPod } from "./inside.ts";

/** By namespace: the cluster as one of its pods sees it, from each node that has one. */
export type Views = ReadonlyMap<string, readonly View[]>;

/** What a pod should, or should not, reach. */
interface Target {
  /** Undefined if there is no pod to request. */
  readonly url?: string;
  /** The pod that must answer; undefined if any answer will do. */
  readonly pod?: string;
}

/** The cluster as seen by a pod on its node. */
interface View {
  readonly node: string;
  /** Names, and the address that each should have. */
  readonly names: Readonly<Record<string, string>>;
  /** A pod on each other node, by the node. */
  readonly pods: readonly (readonly [node: string, target: Target])[];
  /** A pod of each isolated namespace, by the namespace: its own pods reach it, no others. Empty for all pods but the first. */
  readonly isolated: readonly (readonly [namespace: string, target: Target])[];
  readonly answers: Promise<Answers>;
}

/** The namespaces that apps are in. */
export const namespacesOf = (apps: readonly App[]): string[] => [
  ...new Set(apps.map(({ namespace }) => namespace)),
];

const nobody = "there is no ready pod to check from";

/** Whether an app of the namespace should have a pod. */
const hasPods = (apps: readonly App[], namespace: string): boolean =>
  apps.some((app) => app.namespace === namespace && app.replicas > 0);

/** Checks names and pods as seen by the pods of a namespace. */
export async function checkInside(
  { namespace: own, apps }: OnCluster,
  namespace: string,
  inside: Promise<Views>,
): Promise<CheckSpec[]> {
  // Without apps there is no pod to check from.
  if (!hasPods(apps, namespace)) return [];
  const [prefix, whose] = namespace === own ? ["", "a pod"] : [`${namespace}/`, `a pod of ${namespace}`];
  const dns = {
    id: `${prefix}dns`,
    title: "names inside the cluster",
    expected: "every name resolves",
    hint: "See CoreDNS: `kubectl --namespace kube-system logs deployment/coredns`.",
  };
  const unseen = async () => {
    await inside;
    throw new Error(nobody);
  };
  const views = (await inside.catch(() => undefined))?.get(namespace) ?? [];
  if (views.length === 0) return [{ ...dns, actual: unseen }];
  return views.flatMap(({ node, names, pods, answers }) => [
    {
      ...dns,
      id: `${dns.id}/${node}`,
      title: `${dns.title}, asked from ${whose} on ${node}`,
      actual: async () => {
        const told = (await answers).names;
        const wrong = Object.entries(names).filter(([name, address]) => told[name] !== address);
        return (
          wrong
            .map(([name, address]) => `${name} is ${told[name] ?? "unknown"}, not ${address}`)
            .join("; ") || dns.expected
        );
      },
    },
    ...pods.map(([other, target]) => ({
      id: `${prefix}pod-to-pod/${node}/${other}`,
      title: `from ${whose} on ${node} to one on ${other}`,
      expected: "it answers",
      actual: async () => describeReach(other, target, await answers),
      hint: "Pods on different nodes communicate through flannel: see the flannel checks, and whether UDP port 8472 is open between the machines.",
    })),
  ]);
}

/** The isolated namespaces with pods. */
const isolatedOf = ({ namespaces, apps }: OnCluster): string[] =>
  namespaces.filter(({ name, isolated }) => isolated && hasPods(apps, name)).map(({ name }) => name);

/**
 * Checks which pods can reach isolated namespaces. A timeout proves isolation only if the pod is alive: so each
 * of these namespaces is requested from inside too.
 */
export function checkIsolation(config: OnCluster, deploy: string, inside: Promise<Views>): CheckSpec[] {
  const from = namespacesOf(config.apps).filter((namespace) => hasPods(config.apps, namespace));
  return from.flatMap((asker) =>
    isolatedOf(config).map((namespace) => {
      const open = asker === namespace;
      return {
        id: `isolation/${asker}/${namespace}`,
        title: open ? `${asker}: its pods reach each other` : `${namespace}: closed to pods of ${asker}`,
        expected: open ? "it answers" : "no answer",
        actual: async () => {
          const view = (await inside).get(asker)?.[0];
          const [, target] = view?.isolated.find(([name]) => name === namespace) ?? [];
          if (!view || !target) throw new Error(nobody);
          return describeIsolation(namespace, open, target, await view.answers);
        },
        hint: `${deploy} See its policy: \`kubectl --namespace ${namespace} describe networkpolicy\`. If the cluster's network ignores policies, set \`isolated: false\`.`,
      };
    }),
  );
}

function describeIsolation(
  namespace: string,
  open: boolean,
  { url, pod }: Target,
  { urls }: Answers,
): string {
  if (url === undefined) return `there is no ready pod of ${namespace}`;
  const answer = urls[url];
  if (answer === undefined) return `${url}: unknown`;
  if (open) return answer === pod ? "it answers" : `${url}: ${answer}`;
  return isAnswer(answer) ? `${url}: ${answer} answers` : "no answer";
}

/** Whether it is a pod's name or a status, and not an error. */
const isAnswer = (text: string): boolean => /^(\d{3}|[a-z0-9]+(-[a-z0-9]+)*)$/.test(text);

function describeReach(node: string, { url, pod }: Target, { urls }: Answers): string {
  if (url === undefined) return `there is no ready pod on ${node}`;
  const answer = urls[url] ?? "unknown";
  // ServiceLB forwards to some pod of the default route, or a status answers.
  const right = pod === undefined ? isAnswer(answer) : answer === pod;
  return right ? "it answers" : `${url}: ${answer}`;
}

/**
 * Checks from one app pod on each node, in each namespace: every Service by name, a pod on every other node by
 * address, and once for each namespace a pod of every isolated one. If a node has no app pod, ServiceLB's stands in
 * as the target: it forwards its port 80.
 *
 * @param askPod queries pods of a namespace.
 */
export async function probeFromPods(
  config: OnCluster,
  api: KubernetesApi,
  askPod: (namespace: string) => AskPod,
): Promise<Views> {
  const [nodes, system, own, homes] = await Promise.all([
    api.nodes(),
    api.pods("kube-system").catch(() => []),
    api.services("default"),
    Promise.all(namespacesOf(config.apps).map((namespace) => readHome(namespace, config.apps, api))),
  ]);
  const serviceLb = system.filter((pod) => isServiceLb(pod) && isReady(pod));
  // Every node of the lab's own clusters runs ServiceLB, unless a taint prevents it; nodes of other clusters may run no
  // suitable pod.
  const hasPod = (node: Node) => "stack" in config.cluster && !keepsAway(node);
  const askersOf = ({ pods }: Home) => nodes.flatMap((node) => podOn(pods, node) ?? []);
  const isolated = homes
    .filter(({ namespace }) => isolatedOf(config).includes(namespace))
    .map((home) => [home.namespace, targetOf(neighbour(home.pods, askersOf(home)[0]), home.apps)] as const);
  const viewsOf = (home: Home): View[] =>
    askersOf(home).map((asker, index) => {
      const node = asker.spec.nodeName ?? "";
      const reachable = [...home.pods, ...serviceLb].filter(({ status }) => status.podIP);
      const view = {
        node,
        names: namesOf(home, own),
        pods: nodes
          .filter(({ metadata }) => metadata.name !== node)
          .map((other) => ({ other, target: targetOf(podOn(reachable, other), home.apps) }))
          .filter(({ other, target: { url } }) => hasPod(other) || url !== undefined)
          .map(({ other, target }) => [other.metadata.name, target] as const),
        isolated: index === 0 ? isolated : [],
      };
      return { ...view, answers: askOnce(askPod(home.namespace)(asker, questionsOf(home.namespace, view))) };
    });
  return new Map(homes.map((home) => [home.namespace, viewsOf(home)]));
}

/** Whether a user's taint keeps pods off a node; Kubernetes's own taints describe its condition. */
const keepsAway = ({ spec }: Node): boolean =>
  (spec?.taints ?? []).some(
    ({ key, effect }) => effect !== "PreferNoSchedule" && !key.startsWith("node.kubernetes.io/"),
  );

/** A namespace with apps. */
interface Home {
  readonly namespace: string;
  readonly apps: readonly App[];
  /** The apps' pods that are ready. */
  readonly pods: readonly Pod[];
  readonly services: readonly Service[];
}

async function readHome(namespace: string, all: readonly App[], api: KubernetesApi): Promise<Home> {
  const apps = all.filter((app) => app.namespace === namespace);
  const [pods, services] = await Promise.all([api.pods(namespace), api.services(namespace)]);
  return { namespace, apps, pods: pods.filter((pod) => isReady(pod) && isAppPod(pod, apps)), services };
}

/** Whether a pod is one of these apps'. */
export const isAppPod = ({ metadata: { labels } }: Pod, apps: readonly Pick<App, "name">[]): boolean =>
  labels["app.kubernetes.io/part-of"] === "k3s-lab" &&
  apps.some(({ name }) => labels["app.kubernetes.io/name"] === name);

const podOn = (pods: readonly Pod[], { metadata: { name } }: Node): Pod | undefined =>
  pods.find(({ spec }) => spec.nodeName === name);

/** A pod other than the asking one, or that one itself if it is alone. */
const neighbour = (pods: readonly Pod[], asker: Pod | undefined): Pod | undefined =>
  pods.find((pod) => pod !== asker && pod.status.podIP !== undefined) ?? asker;

/** The URL of a pod: a path that its app answers. */
function targetOf(pod: Pod | undefined, apps: readonly App[]): Target {
  if (pod === undefined) return {};
  const port = pod.spec.containers.flatMap(({ ports }) => ports)[0]?.containerPort ?? 80;
  const app = apps.find((one) => isAppPod(pod, [one]));
  const url = `http://${pod.status.podIP}:${port}${(app && pathsOf(app)[0]?.path) ?? "/"}`;
  return isServiceLb(pod) ? { url } : { url, pod: pod.metadata.name };
}

function namesOf({ namespace, apps, services }: Home, own: readonly Service[]): Record<string, string> {
  const address = (list: readonly Service[], wanted: string) =>
    list.find(({ metadata }) => metadata.name === wanted)?.spec.clusterIP ?? "known to the cluster";
  return {
    // This short name tests the pod's search domains; the others end with a dot, which skips them.
    "kubernetes.default": address(own, "kubernetes"),
    ...Object.fromEntries(
      apps.map(({ name }) => [`${name}.${namespace}.svc.cluster.local.`, address(services, name)]),
    ),
  };
}

function questionsOf(
  namespace: string,
  { names, pods, isolated }: Pick<View, "names" | "pods" | "isolated">,
): Questions {
  const urls = (targets: View["pods"]) => targets.flatMap(([, { url }]) => url ?? []);
  const own = isolated.filter(([name]) => name === namespace);
  return {
    names: Object.keys(names),
    urls: [...new Set(urls([...pods, ...own]))],
    barred: urls(isolated.filter(([name]) => name !== namespace)),
  };
}
