import type { HttpAnswer } from "../../stacks/lib/http.ts";
import { isReady, type KubernetesApi } from "../../stacks/lib/kubernetes.ts";
import { type App, type AppNamespace, appPath, type OnCluster } from "../../stacks/model/config.ts";
import { hardLimits, parseQuantity } from "../../stacks/model/quota.ts";
import { canaryPods, mostPods } from "../../stacks/model/replicas.ts";
import { hostsOf, pathsOf } from "../../stacks/model/routes.ts";
import { curlSecurely } from "../curl.ts";
import { checkAutoscaler } from "./autoscalers.ts";
import { type Check, type CheckSpec, runChecks } from "./check.ts";
import { checkConcepts } from "./concepts.ts";
import { checkInside, checkIsolation, namespacesOf, type Views } from "./from-pods.ts";
import { checkDatabase, checkPage } from "./guest-book.ts";
import {
  answersOf,
  differentPods,
  type Get,
  type IngressAddress,
  noAnswerPrefix,
  podsAnswering,
  requestsPerReplica,
  unknownHost,
  whoAnswers,
} from "./ingress.ts";
import type { AskPod, ExecInPod } from "./inside.ts";
import { whyLate } from "./late.ts";
import { checkPlacement } from "./placement.ts";
import { checkPodParts } from "./pod-parts.ts";

/** Sources for the checks of apps. */
interface AppsSources {
  readonly api: Promise<KubernetesApi>;
  /** Where the Ingress controller listens. */
  readonly addresses: Promise<readonly IngressAddress[]>;
  readonly http: Get;
  /** The same for HTTPS; undefined if no app uses it. */
  readonly https: Https | undefined;
  readonly inside: Promise<Views>;
  /** Runs a command in a pod of the stack's own namespace. */
  readonly exec: Promise<ExecInPod>;
  /** Queries such a pod. */
  readonly askPod: Promise<AskPod>;
}

interface Https {
  readonly addresses: Promise<readonly IngressAddress[]>;
  /** Sends requests as a client that trusts only the issuer of the app's certificate. */
  readonly send: (app: App) => Get;
  /** Whether HTTP redirects here. */
  readonly redirects: boolean;
}

/** Checks apps against their stack file. @param stack begins each check's id. */
export function checkApps(stack: string, config: OnCluster, sources: AppsSources): Promise<Check[]> {
  const deploy = `Run \`scripts/lab up ${stack}\`.`;
  const { inside } = sources;
  return runChecks(stack, [
    ...config.apps.flatMap((app) => {
      const path = appPath(config, app);
      return [
        checkPods(path, app, deploy, sources),
        checkAutoscaler(path, app, deploy, sources),
        checkRoutes(path, app, config, sources),
        checkSpread(path, app, sources),
      ];
    }),
    ...checkDefault(config, sources),
    ...config.namespaces.map((one) => checkQuota(one, deploy, sources)),
    ...namespacesOf(config.apps).map((namespace) => checkInside(config, namespace, inside)),
    checkIsolation(config, deploy, inside),
    ...("database" in config
      ? [
          checkPage(config, deploy, (app) => askApp(app, sources)),
          checkDatabase(config, deploy, sources),
          checkPodParts(config, deploy, sources),
        ]
      : []),
    checkPlacement(config, deploy, sources.api),
    ...("services" in config ? [checkConcepts(config, deploy, sources)] : []),
  ]);
}

const replicas = (count: number): string => `${count} ${count === 1 ? "replica" : "replicas"}`;

const atLeast = (autoscaling: App["autoscaling"], count: number): string =>
  `${autoscaling ? "at least " : ""}${count}`;

function checkPods(path: string, app: App, deploy: string, { api }: AppsSources): CheckSpec[] {
  const { name, namespace, replicas: wanted, autoscaling } = app;
  const most = mostPods(app);
  // Pods that an autoscaler is adding are not ready yet.
  const count = autoscaling ? `${wanted} to ${most} replicas` : replicas(wanted);
  const kubectl = `kubectl --namespace ${namespace}`;
  return [
    {
      id: `${path}/replicas`,
      title: `${path}: its Deployment`,
      expected: `${count}, ${atLeast(autoscaling, wanted)} ready`,
      actual: async () => {
        const list = await (await api).deployments(namespace);
        const one = list.find(({ metadata }) => metadata.name === name);
        if (!one) return "there is none";
        const { readyReplicas, conditions } = one.status;
        // Its old pods still serve, so nothing else reveals it.
        const isStuck = conditions.some(({ reason }) => reason === "ProgressDeadlineExceeded");
        const stuck = isStuck ? ", and its rollout has failed" : "";
        const found = `${replicas(one.spec.replicas)}, ${readyReplicas} ready${stuck}`;
        if (readyReplicas >= wanted && !isStuck) {
          const ok = wanted <= one.spec.replicas && one.spec.replicas <= most;
          return { found, ok: ok && (autoscaling !== undefined || readyReplicas === wanted) };
        }
        const pods = await (await api).pods(namespace).catch(() => []);
        const late = pods.filter(
          (pod) => pod.metadata.labels["app.kubernetes.io/name"] === name && !isReady(pod),
        );
        return [found, ...(await whyLate(await api, namespace, late))].join("; ");
      },
      hint: `${deploy} If pods do not become ready: \`${kubectl} describe pods --selector app.kubernetes.io/name=${name}\`.`,
    },
    {
      id: `${path}/endpoints`,
      title: `${path}: endpoints of its Service`,
      expected: `${atLeast(autoscaling, wanted + canaryPods(app))} ready`,
      actual: async () => {
        const slices = await (await api).endpointSlices(namespace);
        const mine = slices.filter(({ metadata }) => metadata.labels["kubernetes.io/service-name"] === name);
        // By the API's definition, a missing field means ready.
        const ready = mine
          .flatMap(({ endpoints }) => endpoints)
          .filter(({ conditions }) => conditions.ready !== false);
        const all = wanted + canaryPods(app);
        const isRight = autoscaling ? ready.length >= all : ready.length === all;
        return { found: `${ready.length} ready`, ok: isRight };
      },
      hint: `Compare the Service's selector with the pods' labels: \`${kubectl} describe service ${name}\`.`,
    },
  ];
}

function checkQuota({ name, quota }: AppNamespace, deploy: string, { api }: AppsSources): CheckSpec[] {
  const limits = Object.entries(hardLimits(quota ?? {}));
  if (limits.length === 0) return [];
  const inWords = (value: (limit: string, wanted: string) => string) =>
    limits.map(([limit, wanted]) => `${limit} ${value(limit, wanted)}`).join(", ");
  return [
    {
      id: `${name}/quota`,
      title: `the namespace ${name}: its quota`,
      expected: inWords((_, wanted) => wanted),
      actual: async () => {
        const list = await (await api).resourceQuotas(name);
        const hard = list.find(({ metadata }) => metadata.name === name)?.spec.hard;
        if (!hard) return "there is none";
        return inWords((limit, wanted) => {
          const given = hard[limit];
          if (given === undefined) return "not limited";
          // Quantities have several spellings, and the API server normalizes them.
          return parseQuantity(given) === parseQuantity(wanted) ? wanted : given;
        });
      },
      hint: `${deploy} See it: \`kubectl --namespace ${name} describe resourcequota\`.`,
    },
  ];
}

/** A check at each address. @param title of the check at an address. @param asked a path, and a host unless undefined. */
async function checkAt(
  { addresses, http }: Pick<AppsSources, "addresses" | "http">,
  title: (address: string) => Pick<CheckSpec, "id" | "title">,
  [host, path]: readonly [host: string | undefined, path?: string],
  { expected, words = (answer) => answer }: Expectation,
  hint: string,
): Promise<CheckSpec[]> {
  const list = await addresses.catch(() => undefined);
  if (list === undefined) return [{ ...title("?"), expected, hint, actual: () => addresses.then(String) }];
  return list.map((address) => ({
    ...title(address),
    expected,
    actual: async () => words(await whoAnswers(http, address, host, path)),
    hint: hint.replace("ADDRESS", address),
  }));
}

/** The expected answer. */
interface Expectation {
  readonly expected: string;
  /** Normalizes an answer before the comparison. Default: unchanged. */
  readonly words?: (answer: string) => string;
}

/**
 * If an app has no pod, the Ingress controller decides: 503, 404 as Traefik 2 does, or the app of a shorter path.
 */
function answerOf(app: App): Expectation {
  const own = answersOf(app);
  if (app.replicas + canaryPods(app) > 0) {
    const expected = own.join(" or ");
    return { expected, words: (answer) => (own.includes(answer) ? expected : answer) };
  }
  const expected = "not the app, which has no pod";
  return {
    expected,
    words: (answer) => (own.includes(answer) || answer.startsWith(noAnswerPrefix) ? answer : expected),
  };
}

async function checkRoutes(
  path: string,
  app: App,
  config: OnCluster,
  sources: AppsSources,
): Promise<CheckSpec[]> {
  const checks = hostsOf(app).flatMap((host) =>
    // The default route leads to the app without a host.
    host === undefined
      ? []
      : [checkHost(host === app.host ? path : `${path}/${host}`, { ...app, host }, config, sources)],
  );
  return (await Promise.all(checks)).flat();
}

async function checkHost(
  id: string,
  app: App & { readonly host: string },
  config: OnCluster,
  sources: AppsSources,
): Promise<CheckSpec[]> {
  const { host } = app;
  const https = app.tls && sources.https;
  const sent = https?.redirects && app.replicas > 0 ? { expected: "status 308" } : answerOf(app);
  const pods = `kubectl --namespace ${config.ingressNamespace} get pods`;
  const view = `The Ingress controller's view is in the logs of its pod: \`${pods}\`.`;
  const checks = pathsOf(app).flatMap(({ path }) => {
    const part = path === "/" ? "" : path;
    const plain = checkAt(
      sources,
      (address) => ({ id: `${id}/route${part}/${address}`, title: `${host}${part} through ${address}` }),
      [host, path],
      sent,
      `Try it: \`curl -H 'Host: ${host}' http://ADDRESS${path}\`. ${view}`,
    );
    if (!https) return [plain];
    const secure = checkAt(
      { addresses: https.addresses, http: https.send(app) },
      (address) => ({
        id: `${id}/https${part}/${address}`,
        title: `https://${host}${part} through ${address}`,
      }),
      [host, path],
      answerOf(app),
      `Try it: \`${curlSecurely(app, "ADDRESS", path)}\`. ${view}`,
    );
    return [plain, secure];
  });
  return (await Promise.all(checks)).flat();
}

function checkDefault(config: OnCluster, sources: AppsSources): Promise<CheckSpec[]>[] {
  const fallback = config.apps.find(({ host }) => host === undefined);
  // Without one, whatever the cluster routes there, such as another stack's app, is not this stack's.
  if (!fallback) return [];
  const hint = `The Ingress of ${appPath(config, fallback)} must have a rule without a host. Try it: \`curl http://ADDRESS/\`.`;
  const asked = [
    ["unknown-host", "an unknown host", unknownHost],
    ["no-host", "no host", undefined],
  ] as const;
  return asked.map(([id, words, host]) =>
    checkAt(
      sources,
      (address) => ({ id: `default/${id}/${address}`, title: `${words} through ${address}` }),
      [host],
      answerOf(fallback),
      hint,
    ),
  );
}

/** Requests an app's first path, through the first address. @throws Error if there is none, or no answer. */
async function askApp(app: App, { addresses, http, https }: AppsSources): Promise<HttpAnswer> {
  const [where, send] = app.tls && https ? [https.addresses, https.send(app)] : [addresses, http];
  const [first] = await where;
  if (first === undefined) throw new Error("there is no address");
  return send(first, app.host, pathsOf(app)[0]?.path);
}

function checkSpread(path: string, app: App, { addresses, http, https }: AppsSources): CheckSpec[] {
  const [where, send] = app.tls && https ? [https.addresses, https.send(app)] : [addresses, http];
  const { name, namespace } = app;
  const wanted = app.replicas + canaryPods(app);
  if (wanted === 0) return [];
  return [
    {
      id: `${path}/pods`,
      title: app.autoscaling ? `${path}: its pods answer` : `${path}: all its pods answer`,
      expected: differentPods(wanted),
      actual: async () => {
        const [first] = await where;
        return first === undefined ? "there is no address" : podsAnswering(send, first, app);
      },
      hint: `${wanted * requestsPerReplica} requests are enough to reach every pod. See which do: \`kubectl --namespace ${namespace} describe service ${name}\`.`,
    },
  ];
}
