import {
  type Deployment,
  type EndpointSlice,
  isReady,
  type Pod,
  podState,
  type ResourceQuota,
} from "../../stacks/lib/kubernetes.ts";
import { type App, type AppNamespace, type AppsConfig, appPath } from "../../stacks/model/config.ts";
import { hardLimits, parseQuantity } from "../../stacks/model/quota.ts";
import { type Answer, type Check, type Judgement, judge, map } from "./check.ts";
import { checkInside, checkIsolation, namespacesOf, type Views } from "./from-pods.ts";
import {
  answerKey,
  appKey,
  describeApp,
  differentPods,
  type IngressAddress,
  type IngressFindings,
  requestsPerReplica,
  unknownHost,
} from "./ingress.ts";

/** What was asked of each namespace, by its name. */
type ByNamespace<T> = ReadonlyMap<string, Answer<T>>;

/** What was found out about the apps. */
export interface AppsFindings {
  readonly addresses: Answer<readonly IngressAddress[]>;
  readonly deployments: ByNamespace<readonly Deployment[]>;
  readonly pods: ByNamespace<readonly Pod[]>;
  readonly endpointSlices: ByNamespace<readonly EndpointSlice[]>;
  readonly quotas: ByNamespace<readonly ResourceQuota[]>;
  readonly ingress: IngressFindings;
  readonly inside: Answer<Views>;
}

/** Judges the apps by their stack file. @param stack begins each check's id. */
export function checkApps(stack: string, config: AppsConfig, found: AppsFindings): Check[] {
  const deploy = `Run \`scripts/lab up ${stack}\`.`;
  const checks = [
    ...config.apps.flatMap((app) => {
      const path = appPath(config, app);
      return [
        ...checkPods(path, app, deploy, found),
        ...checkRoutes(path, app, config, found),
        ...checkSpread(path, app, found),
      ];
    }),
    ...checkDefault(config, found),
    ...config.namespaces.flatMap((one) => checkQuota(one, deploy, found)),
    ...namespacesOf(config.apps).flatMap((namespace) => checkInside(config, namespace, found.inside)),
    ...checkIsolation(config, deploy, found.inside),
  ];
  return checks.map((one) => judge({ ...one, id: `${stack}/${one.id}` }));
}

const replicas = (count: number): string => `${count} ${count === 1 ? "replica" : "replicas"}`;

/** What was asked of a namespace. */
const of = <T>(answers: ByNamespace<T>, namespace: string): Answer<T> =>
  answers.get(namespace) ?? { ok: false, reason: `the namespace ${namespace} was not asked` };

function checkPods(
  path: string,
  { name, namespace, replicas: wanted }: App,
  deploy: string,
  found: AppsFindings,
): Judgement[] {
  const kubectl = `kubectl --namespace ${namespace}`;
  const pods = of(found.pods, namespace);
  const late = (pods.ok ? pods.value : [])
    .filter((pod) => pod.metadata.labels["app.kubernetes.io/name"] === name && !isReady(pod))
    .map((pod) => `${pod.metadata.name} is ${podState(pod)}`);
  return [
    {
      id: `${path}/replicas`,
      title: `${path}: its Deployment`,
      expected: `${replicas(wanted)}, ${wanted} ready`,
      actual: map(of(found.deployments, namespace), (list) => {
        const one = list.find(({ metadata }) => metadata.name === name);
        if (!one) return "there is none";
        const found = `${replicas(one.spec.replicas)}, ${one.status.readyReplicas} ready`;
        return one.status.readyReplicas >= wanted ? found : [found, ...late].join("; ");
      }),
      hint: `${deploy} If pods do not get ready: \`${kubectl} describe pods --selector app.kubernetes.io/name=${name}\`.`,
    },
    {
      id: `${path}/endpoints`,
      title: `${path}: endpoints of its Service`,
      expected: `${wanted} ready`,
      actual: map(of(found.endpointSlices, namespace), (slices) => {
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

function checkQuota({ name, quota }: AppNamespace, deploy: string, found: AppsFindings): Judgement[] {
  const limits = Object.entries(hardLimits(quota ?? {}));
  if (limits.length === 0) return [];
  const inWords = (value: (limit: string, wanted: string) => string) =>
    limits.map(([limit, wanted]) => `${limit} ${value(limit, wanted)}`).join(", ");
  return [
    {
      id: `${name}/quota`,
      title: `the namespace ${name}: its quota`,
      expected: inWords((_, wanted) => wanted),
      actual: map(of(found.quotas, name), (list) => {
        const hard = list.find(({ metadata }) => metadata.name === name)?.spec.hard;
        if (!hard) return "there is none";
        return inWords((limit, wanted) => {
          const given = hard[limit];
          if (given === undefined) return "not limited";
          // One amount has many spellings, and the API server has its own.
          return parseQuantity(given) === parseQuantity(wanted) ? wanted : given;
        });
      }),
      hint: `${deploy} See it: \`kubectl --namespace ${name} describe resourcequota\`.`,
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

/** What the Ingress controller says for an app that has no pod. */
const answerOf = ({ name, version, namespace, replicas: count }: App): string =>
  count === 0 ? "status 503" : describeApp({ app: name, version, namespace });

function checkRoutes(path: string, app: App, config: AppsConfig, found: AppsFindings): Judgement[] {
  const { host } = app;
  // The app without a host is what the default route leads to.
  if (host === undefined) return [];
  const pods = `kubectl --namespace ${config.ingressNamespace} get pods`;
  return answerAt(
    found,
    (address) => ({ id: `${path}/route/${address}`, title: `${host} through ${address}` }),
    host,
    answerOf(app),
    `Try it: \`curl -H 'Host: ${host}' http://ADDRESS/\`. The Ingress controller's view is in the logs of its pod: \`${pods}\`.`,
  );
}

function checkDefault(config: AppsConfig, found: AppsFindings): Judgement[] {
  const fallback = config.apps.find(({ host }) => host === undefined);
  const expected = fallback ? answerOf(fallback) : "status 404";
  const hint = fallback
    ? `The Ingress of ${appPath(config, fallback)} must have a rule without a host. Try it: \`curl http://ADDRESS/\`.`
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

function checkSpread(path: string, app: App, found: AppsFindings): Judgement[] {
  const { name, namespace, replicas: wanted } = app;
  if (wanted === 0) return [];
  return [
    {
      id: `${path}/pods`,
      title: `${path}: all its pods answer`,
      expected: differentPods(wanted),
      actual: map(found.addresses, () => found.ingress.pods.get(appKey(app)) ?? "nobody asked"),
      hint: `${wanted * requestsPerReplica} requests are enough to meet every pod. See which take part: \`kubectl --namespace ${namespace} describe service ${name}\`.`,
    },
  ];
}
