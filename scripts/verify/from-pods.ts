import {
  isReady,
  type KubernetesApi,
  type Node,
  type Pod,
  type Service,
} from "../../stacks/lib/kubernetes.ts";
import type { App, AppsConfig } from "../../stacks/model/config.ts";
import { type Answer, ask, type Judgement, map } from "./check.ts";
import { isServiceLb } from "./cluster.ts";
import type { Answers, Questions } from "./in-pod.ts";
import type { AskPod } from "./inside.ts";

/** By namespace: the cluster as one of its pods sees it, from each node that has one. */
export type Views = ReadonlyMap<string, readonly View[]>;

/** The cluster as a pod sees it from its node. */
export interface View {
  readonly node: string;
  readonly questions: readonly Expectation[];
  readonly answers: Answer<Answers>;
}

/** A question to a pod, and what it should find. */
type Expectation =
  | { readonly kind: "name"; readonly name: string; readonly address: string }
  | {
      readonly kind: "pod";
      readonly node: string;
      /** None where the node has no pod that could be asked. */
      readonly url: string | undefined;
      /** The pod that must answer; none where any answer will do. */
      readonly pod: string | undefined;
    }
  | {
      readonly kind: "namespace";
      /** An isolated namespace; its own pods reach it, no others. */
      readonly namespace: string;
      readonly open: boolean;
      /** None where the namespace has no pod that could be asked. */
      readonly url: string | undefined;
      readonly pod: string | undefined;
    };

type PodExpectation = Extract<Expectation, { readonly kind: "pod" }>;
type NamespaceExpectation = Extract<Expectation, { readonly kind: "namespace" }>;

/** The namespaces that apps are in. */
export const namespacesOf = (apps: readonly App[]): string[] => [
  ...new Set(apps.map(({ namespace }) => namespace)),
];

const nobody = "there is no ready pod to look from";

/** Whether an app of the namespace should have a pod. */
const hasPods = (apps: readonly App[], namespace: string): boolean =>
  apps.some((app) => app.namespace === namespace && app.replicas > 0);

/** Judges names and pods as the pods of a namespace see them. */
export function checkInside(
  { namespace: own, apps }: AppsConfig,
  namespace: string,
  inside: Answer<Views>,
): Judgement[] {
  // Where no app should run there is no pod to look from.
  if (!hasPods(apps, namespace)) return [];
  const [prefix, whose] = namespace === own ? ["", "a pod"] : [`${namespace}/`, `a pod of ${namespace}`];
  const dns = { id: `${prefix}dns`, title: "names inside the cluster", expected: "every name resolves" };
  const hint = "See CoreDNS: `kubectl --namespace kube-system logs deployment/coredns`.";
  const found = map(inside, (views) => views.get(namespace) ?? []);
  const views: Answer<readonly View[]> =
    found.ok && found.value.length === 0 ? { ok: false, reason: nobody } : found;
  if (!views.ok) return [{ ...dns, actual: views, hint }];
  return views.value.flatMap(({ node, questions, answers }) => {
    const wrong = map(answers, ({ names }) =>
      questions
        .filter((one) => one.kind === "name")
        .filter(({ name, address }) => names[name] !== address)
        .map(({ name, address }) => `${name} is ${names[name] ?? "not told"}, not ${address}`),
    );
    const resolving: Judgement = {
      ...dns,
      id: `${dns.id}/${node}`,
      title: `${dns.title}, asked from ${whose} on ${node}`,
      actual: map(wrong, (list) => list.join("; ") || dns.expected),
      hint,
    };
    const reaching = questions
      .filter((one) => one.kind === "pod")
      .map((question) => ({
        id: `${prefix}pod-to-pod/${node}/${question.node}`,
        title: `from ${whose} on ${node} to one on ${question.node}`,
        expected: "it answers",
        actual: map(answers, ({ urls }) => describeReach(question, urls)),
        hint: "Pods of different nodes meet over flannel: see the checks on flannel, and whether UDP port 8472 is open between the machines.",
      }));
    return [resolving, ...reaching];
  });
}

/** The isolated namespaces that have pods to ask. */
const isolatedOf = ({ namespaces, apps }: AppsConfig): string[] =>
  namespaces.filter(({ name, isolated }) => isolated && hasPods(apps, name)).map(({ name }) => name);

/**
 * Judges who may ask the pods of isolated namespaces. Silence proves something only of a pod that does answer: so each
 * of these namespaces is asked by a pod of its own too.
 */
export function checkIsolation(config: AppsConfig, deploy: string, inside: Answer<Views>): Judgement[] {
  const from = namespacesOf(config.apps).filter((namespace) => hasPods(config.apps, namespace));
  return from.flatMap((asker) =>
    isolatedOf(config).map((namespace) => {
      const open = asker === namespace;
      return {
        id: `isolation/${asker}/${namespace}`,
        title: open ? `${asker}: its pods reach each other` : `${namespace}: closed to pods of ${asker}`,
        expected: open ? "it answers" : "no answer",
        actual: inside.ok ? describeIsolation(inside.value.get(asker) ?? [], namespace) : inside,
        hint: `${deploy} See its policy: \`kubectl --namespace ${namespace} describe networkpolicy\`. Where the cluster's network ignores policies, set \`isolated: false\`.`,
      };
    }),
  );
}

function describeIsolation(views: readonly View[], namespace: string): Answer<string> {
  for (const { questions, answers } of views) {
    const question = questions.find((one) => one.kind === "namespace" && one.namespace === namespace);
    if (question?.kind === "namespace") return map(answers, ({ urls }) => describeBarrier(question, urls));
  }
  return { ok: false, reason: nobody };
}

function describeBarrier({ namespace, open, url, pod }: NamespaceExpectation, urls: Answers["urls"]): string {
  if (url === undefined) return `there is no ready pod of ${namespace}`;
  const answer = urls[url];
  if (answer === undefined) return `${url}: not told`;
  if (open) return answer === pod ? "it answers" : `${url}: ${answer}`;
  return isAnswer(answer) ? `${url}: ${answer} answers` : "no answer";
}

/** Whether it is a pod's name or a status; an error is neither. */
const isAnswer = (text: string): boolean => /^(\d{3}|[a-z0-9]+(-[a-z0-9]+)*)$/.test(text);

function describeReach({ node, url, pod }: PodExpectation, urls: Answers["urls"]): string {
  if (url === undefined) return `there is no ready pod on ${node}`;
  const answer = urls[url] ?? "not told";
  // What ServiceLB passes on is answered by some pod of the default route, or with a status.
  const right = pod === undefined ? isAnswer(answer) : answer === pod;
  return right ? "it answers" : `${url}: ${answer}`;
}

/**
 * Looks from one app pod on each node, in each namespace: every Service by its name, a pod on every other node by its
 * address, and once for each namespace a pod of every isolated one. Where a node has no app pod, ServiceLB's stands in
 * as the one to reach: it passes on what reaches its port 80.
 *
 * @param askPod who asks pods of a namespace.
 */
export async function probeFromPods(
  config: AppsConfig,
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
  // Every node of the lab's own clusters runs ServiceLB; others have nodes that run nothing which could be asked.
  const everywhere = "stack" in config.cluster;
  const askers = new Map(homes.map((home) => [home, nodes.flatMap((node) => podOn(home.pods, node) ?? [])]));
  const barriers = homes
    .filter(({ namespace }) => isolatedOf(config).includes(namespace))
    .map((home) => ({ ...home, target: neighbour(home.pods, askers.get(home)?.[0]) }));

  const look = async (home: Home) => {
    const names = expectedNames(home, own);
    const reachable = [...home.pods, ...serviceLb];
    const views = (askers.get(home) ?? []).map(async (from, index): Promise<View> => {
      const node = from.spec.nodeName ?? "";
      const pods = expectedPods(node, nodes, reachable).filter(({ url }) => everywhere || url !== undefined);
      const isolation = index === 0 ? barriers.map((barrier) => expectedBarrier(home, barrier)) : [];
      const questions = [...names, ...pods, ...isolation];
      return {
        node,
        questions,
        answers: await ask(() => askPod(home.namespace)(from, toQuestions(questions))),
      };
    });
    return [home.namespace, await Promise.all(views)] as const;
  };
  return new Map(await Promise.all(homes.map(look)));
}

/** A namespace with apps. */
interface Home {
  readonly namespace: string;
  readonly apps: readonly App[];
  /** The apps' pods that are ready. */
  readonly pods: readonly Pod[];
  readonly services: readonly Service[];
}

async function readHome(namespace: string, apps: readonly App[], api: KubernetesApi): Promise<Home> {
  const mine = apps.filter((app) => app.namespace === namespace);
  const [pods, services] = await Promise.all([api.pods(namespace), api.services(namespace)]);
  return {
    namespace,
    apps: mine,
    pods: pods.filter((pod) => isReady(pod) && isAppPod(pod, mine)),
    services,
  };
}

const isAppPod = ({ metadata: { labels } }: Pod, apps: readonly App[]): boolean =>
  labels["app.kubernetes.io/part-of"] === "k3s-lab" &&
  apps.some(({ name }) => labels["app.kubernetes.io/name"] === name);

const podOn = (pods: readonly Pod[], { metadata: { name } }: Node): Pod | undefined =>
  pods.find(({ spec }) => spec.nodeName === name);

/** Another pod than the one that asks; that one itself where it is alone. */
const neighbour = (pods: readonly Pod[], asker: Pod | undefined): Pod | undefined =>
  pods.find((pod) => pod !== asker && pod.status.podIP !== undefined) ?? asker;

function expectedNames({ namespace, apps, services }: Home, own: readonly Service[]): Expectation[] {
  const address = (list: readonly Service[], wanted: string) =>
    list.find(({ metadata }) => metadata.name === wanted)?.spec.clusterIP ?? "known to the cluster";
  const name = (short: string, value: string): Expectation => ({
    kind: "name",
    name: short,
    address: value,
  });
  return [
    // This one is short, so that the pod's search domains are tried too; the others end with a dot, so that they are not.
    name("kubernetes.default", address(own, "kubernetes")),
    ...apps.map((app) => name(`${app.name}.${namespace}.svc.cluster.local.`, address(services, app.name))),
  ];
}

function expectedPods(from: string, nodes: readonly Node[], pods: readonly Pod[]): PodExpectation[] {
  const others = nodes.map(({ metadata }) => metadata.name).filter((name) => name !== from);
  return others.map((node) => {
    const target = pods.find(({ spec, status }) => spec.nodeName === node && status.podIP);
    const pod = target && !isServiceLb(target) ? target.metadata.name : undefined;
    return { kind: "pod", node, url: target && urlOf(target), pod };
  });
}

const expectedBarrier = (
  from: Home,
  { namespace, target }: { readonly namespace: string; readonly target: Pod | undefined },
): NamespaceExpectation => ({
  kind: "namespace",
  namespace,
  open: from.namespace === namespace,
  url: target && urlOf(target),
  pod: target?.metadata.name,
});

function urlOf({ spec, status }: Pod): string {
  const port = spec.containers.flatMap(({ ports }) => ports)[0]?.containerPort ?? 80;
  return `http://${status.podIP}:${port}/`;
}

const toQuestions = (expectations: readonly Expectation[]): Questions => {
  const urls = (barred: boolean) =>
    expectations.flatMap((one) =>
      one.kind !== "name" && one.url && barred === (one.kind === "namespace" && !one.open) ? one.url : [],
    );
  return {
    names: expectations.flatMap((one) => (one.kind === "name" ? one.name : [])),
    urls: [...new Set(urls(false))],
    barred: urls(true),
  };
};
