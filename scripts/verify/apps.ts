import type { App, AppsConfig } from "../../stacks/config.ts";
import { type Answer, ask, type Check, type Judgement, judge, map } from "./check.ts";
import { isServiceLb } from "./cluster.ts";
import {
  answerKey,
  differentPods,
  type IngressAddress,
  type IngressFindings,
  requestsPerReplica,
  unknownHost,
} from "./ingress.ts";
import type { Answers, AskPod, Questions } from "./inside.ts";
import {
  type Deployment,
  type EndpointSlice,
  isReady,
  type KubernetesApi,
  type Node,
  type Pod,
  type Service,
} from "./kubernetes.ts";

/** What was found out about the apps. */
export interface AppsFindings {
  readonly addresses: Answer<readonly IngressAddress[]>;
  readonly deployments: Answer<readonly Deployment[]>;
  readonly endpointSlices: Answer<readonly EndpointSlice[]>;
  readonly ingress: IngressFindings;
  readonly inside: Answer<readonly View[]>;
}

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
    };

type PodExpectation = Extract<Expectation, { readonly kind: "pod" }>;

const deploy = "Run `scripts/lab up apps`.";

/** Judges the apps by their stack file. @param stack begins each check's id. */
export function checkApps(stack: string, { namespace, apps }: AppsConfig, found: AppsFindings): Check[] {
  const checks = [
    ...apps.flatMap((app) => [
      ...checkPods(app, namespace, found),
      ...checkRoutes(app, found),
      ...checkSpread(app, namespace, found),
    ]),
    ...checkDefault(apps, found),
    ...checkInside(apps, found.inside),
  ];
  return checks.map((one) => judge({ ...one, id: `${stack}/${one.id}` }));
}

const replicas = (count: number): string => `${count} ${count === 1 ? "replica" : "replicas"}`;

function checkPods({ name, replicas: wanted }: App, namespace: string, found: AppsFindings): Judgement[] {
  const kubectl = `kubectl --namespace ${namespace}`;
  return [
    {
      id: `${name}/replicas`,
      title: `${name}: its Deployment`,
      expected: `${replicas(wanted)}, ${wanted} ready`,
      actual: map(found.deployments, (list) => {
        const one = list.find(({ metadata }) => metadata.name === name);
        return one ? `${replicas(one.spec.replicas)}, ${one.status.readyReplicas} ready` : "there is none";
      }),
      hint: `${deploy} If pods do not get ready: \`${kubectl} describe pods --selector app.kubernetes.io/name=${name}\`.`,
    },
    {
      id: `${name}/endpoints`,
      title: `${name}: endpoints of its Service`,
      expected: `${wanted} ready`,
      actual: map(found.endpointSlices, (slices) => {
        const mine = slices.filter(({ metadata }) => metadata.labels["kubernetes.io/service-name"] === name);
        const ready = mine.flatMap(({ endpoints }) =>
          // The field's absence means ready, by the API's own definition.
          endpoints.filter(({ conditions }) => conditions.ready !== false),
        );
        return `${ready.length} ready`;
      }),
      hint: `Compare the Service's selector with the pods' labels: \`${kubectl} describe service ${name}\`.`,
    },
  ];
}

function answerAt(
  { addresses, ingress }: AppsFindings,
  title: (address: string) => { id: string; title: string },
  host: string | undefined,
  expected: string,
  hint: string,
): Judgement[] {
  if (!addresses.ok) return [{ ...title("?"), expected, actual: addresses, hint }];
  return addresses.value.map((address) => ({
    ...title(address),
    expected,
    actual: { ok: true, value: ingress.answers.get(answerKey(address, host)) ?? "nobody asked" },
    hint: hint.replace("ADDRESS", address),
  }));
}

/** What Traefik says for an app that has no pod. */
const answerOf = ({ name, version, replicas: count }: App): string =>
  count === 0 ? "status 503" : `${name} ${version}`;

function checkRoutes(app: App, found: AppsFindings): Judgement[] {
  const { name, host } = app;
  // The app without a host is what the default route leads to.
  if (host === undefined) return [];
  return answerAt(
    found,
    (address) => ({ id: `${name}/route/${address}`, title: `${host} through ${address}` }),
    host,
    answerOf(app),
    `Try it: \`curl -H 'Host: ${host}' http://ADDRESS/\`. Traefik's view: \`kubectl --namespace kube-system logs deployment/traefik\`.`,
  );
}

function checkDefault(apps: readonly App[], found: AppsFindings): Judgement[] {
  const fallback = apps.find(({ host }) => host === undefined);
  const expected = fallback ? answerOf(fallback) : "status 404";
  const hint = fallback
    ? `The Ingress of ${fallback.name} must have a rule without a host. Try it: \`curl http://ADDRESS/\`.`
    : "No app of the stack file is without a host, so nothing should answer. Look at `kubectl get ingress --all-namespaces`.";
  return [
    ...answerAt(
      found,
      (address) => ({ id: `default/unknown-host/${address}`, title: `an unknown host through ${address}` }),
      unknownHost,
      expected,
      hint,
    ),
    ...answerAt(
      found,
      (address) => ({ id: `default/no-host/${address}`, title: `no host through ${address}` }),
      undefined,
      expected,
      hint,
    ),
  ];
}

function checkSpread({ name, replicas: wanted }: App, namespace: string, found: AppsFindings): Judgement[] {
  if (wanted === 0) return [];
  return [
    {
      id: `${name}/pods`,
      title: `${name}: all its pods answer`,
      expected: differentPods(wanted),
      actual: map(found.addresses, () => found.ingress.pods.get(name) ?? "nobody asked"),
      hint: `${wanted * requestsPerReplica} requests are enough to meet every pod. See which take part: \`kubectl --namespace ${namespace} describe service ${name}\`.`,
    },
  ];
}

function checkInside(apps: readonly App[], inside: Answer<readonly View[]>): Judgement[] {
  // Where no app should run there is no pod to look from.
  if (apps.every((app) => app.replicas === 0)) return [];
  const dns = { id: "dns", title: "names inside the cluster", expected: "every name resolves" };
  const hint = "See CoreDNS: `kubectl --namespace kube-system logs deployment/coredns`.";
  const views: Answer<readonly View[]> =
    inside.ok && inside.value.length === 0
      ? { ok: false, reason: "there is no ready pod to look from" }
      : inside;
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
      id: `dns/${node}`,
      title: `${dns.title}, asked from a pod on ${node}`,
      actual: map(wrong, (list) => list.join("; ") || dns.expected),
      hint,
    };
    const reaching = questions
      .filter((one) => one.kind === "pod")
      .map((question) => ({
        id: `pod-to-pod/${node}/${question.node}`,
        title: `from a pod on ${node} to one on ${question.node}`,
        expected: "it answers",
        actual: map(answers, ({ urls }) => describeReach(question, urls)),
        hint: "Pods of different nodes meet over flannel: see the checks on flannel, and whether UDP port 8472 is open between the machines.",
      }));
    return [resolving, ...reaching];
  });
}

function describeReach({ node, url, pod }: PodExpectation, urls: Answers["urls"]): string {
  if (url === undefined) return `there is no ready pod on ${node}`;
  const answer = urls[url] ?? "not told";
  // What ServiceLB passes on is answered by some pod of the default route, or with a status; an error is neither.
  const right = pod === undefined ? /^(\d{3}|[a-z0-9]+(-[a-z0-9]+)*)$/.test(answer) : answer === pod;
  return right ? "it answers" : `${url}: ${answer}`;
}

/**
 * Looks from one app pod on each node: every Service by its name, and a pod on every other node by its address.
 * Where a node has no app pod, ServiceLB's stands in as the one to reach: it passes on what reaches its port 80.
 */
export async function lookInside(
  { namespace, apps }: AppsConfig,
  api: KubernetesApi,
  askPod: AskPod,
): Promise<readonly View[]> {
  const [nodes, pods, services, own, system] = await Promise.all([
    api.nodes(),
    api.pods(namespace),
    api.services(namespace),
    api.services("default"),
    api.pods("kube-system").catch(() => []),
  ]);
  const names = expectedNames(namespace, apps, services, own);
  const ready = pods.filter((pod) => isReady(pod) && isAppPod(pod, apps));
  const others = [...ready, ...system.filter((pod) => isServiceLb(pod) && isReady(pod))];
  const views = nodes.map(async ({ metadata: { name: node } }): Promise<View | undefined> => {
    const from = ready.find(({ spec }) => spec.nodeName === node);
    if (!from) return undefined;
    const questions = [...names, ...expectedPods(node, nodes, others)];
    return { node, questions, answers: await ask(() => askPod(from, toQuestions(questions))) };
  });
  return (await Promise.all(views)).filter((view) => view !== undefined);
}

const isAppPod = ({ metadata: { labels } }: Pod, apps: readonly App[]): boolean =>
  labels["app.kubernetes.io/part-of"] === "k3s-lab" &&
  apps.some(({ name }) => labels["app.kubernetes.io/name"] === name);

function expectedNames(
  namespace: string,
  apps: readonly App[],
  services: readonly Service[],
  own: readonly Service[],
): Expectation[] {
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

function expectedPods(from: string, nodes: readonly Node[], pods: readonly Pod[]): Expectation[] {
  const others = nodes.map(({ metadata }) => metadata.name).filter((name) => name !== from);
  return others.map((node) => {
    const target = pods.find(({ spec, status }) => spec.nodeName === node && status.podIP);
    if (!target) return { kind: "pod", node, url: undefined, pod: undefined };
    const port = target.spec.containers.flatMap(({ ports }) => ports)[0]?.containerPort ?? 80;
    const pod = isServiceLb(target) ? undefined : target.metadata.name;
    return { kind: "pod", node, url: `http://${target.status.podIP}:${port}/`, pod };
  });
}

const toQuestions = (expectations: readonly Expectation[]): Questions => ({
  names: expectations.flatMap((one) => (one.kind === "name" ? one.name : [])),
  urls: expectations.flatMap((one) => (one.kind === "pod" && one.url ? one.url : [])),
});
