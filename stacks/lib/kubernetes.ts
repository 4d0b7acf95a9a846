import { Agent as HttpAgent } from "node:http";
import { Agent as HttpsAgent } from "node:https";
import { z } from "zod";
import { chooseContext, contextNames } from "../model/kubeconfig.ts";
import { get, type HttpAnswer, type HttpOptions } from "./http.ts";
import { accessOf, type KubeAccess, readText } from "./kube-access.ts";

const text = z.string().optional();
const count = z.int();
const strings = z.record(z.string(), z.string()).default({});
/** A list; the API server omits an empty one, or returns null. */
const list = <One extends z.ZodType>(one: One) =>
  z
    .array(one)
    .nullish()
    .transform((all) => all ?? []);
const metadata = z.object({
  name: z.string(),
  labels: strings,
  annotations: strings,
  deletionTimestamp: text,
  creationTimestamp: text,
  ownerReferences: z.array(z.object({ kind: z.string(), name: z.string() })).optional(),
});
const conditions = list(
  z.object({
    type: z.string(),
    status: z.string(),
    reason: text,
    message: text,
    lastTransitionTime: text,
  }),
);
const reason = z.object({ reason: text }).optional();
const containerState = z.object({ waiting: reason, terminated: reason }).default({});
const container = z.object({
  ports: list(z.object({ containerPort: count })),
  env: list(z.object({ name: z.string(), value: text })),
  resources: z.object({ requests: strings }).optional(),
});

const utilization = z.object({ averageUtilization: count.optional() });
const metricTarget = z.object({
  resource: z.object({ name: z.string(), target: utilization }).optional(),
});
const metricNow = z.object({
  resource: z.object({ name: z.string(), current: utilization }).optional(),
});

/** It has an IP or, as Docker Desktop's `localhost`, a host name. */
const loadBalancer = z
  .object({ ingress: list(z.object({ ip: text, hostname: text })) })
  .default({ ingress: [] });

const ingressRule = z.object({
  host: text,
  http: z.object({ paths: list(z.object({ path: text, pathType: z.string() })) }).optional(),
});

/** A kind of object: its API group, and the fields that the checks use. */
const kind = <Shape extends z.core.$ZodLooseShape>(group: string, shape: Shape) => ({
  group,
  schema: z.object({ metadata, ...shape }),
});
const core = "/api/v1";
const networking = "/apis/networking.k8s.io/v1";
const kinds = {
  nodes: kind(core, {
    spec: z
      .object({
        podCIDR: text,
        taints: list(z.object({ key: z.string(), value: text, effect: z.string() })),
        unschedulable: z.boolean().default(false),
      })
      .optional(),
    status: z.object({
      addresses: list(z.object({ type: z.string(), address: z.string() })),
      conditions,
      nodeInfo: z.object({ kubeletVersion: z.string() }),
      allocatable: strings.optional(),
    }),
  }),
  pods: kind(core, {
    metadata: metadata.extend({ namespace: text }),
    spec: z.object({
      nodeName: text,
      containers: list(container),
      priority: count.optional(),
      tolerations: z
        .array(z.object({ key: text, operator: z.string().default("Equal"), value: text, effect: text }))
        .nullish(),
      volumes: z
        .array(z.object({ persistentVolumeClaim: z.object({ claimName: z.string() }).optional() }))
        .nullish(),
    }),
    status: z.object({
      phase: z.string(),
      podIP: text,
      conditions,
      containerStatuses: list(
        z.object({ state: containerState, lastState: z.object({ terminated: reason }).optional() }),
      ),
      initContainerStatuses: z.array(z.object({ state: containerState })).optional(),
    }),
  }),
  persistentVolumeClaims: kind(core, {
    spec: z.object({ resources: z.object({ requests: z.object({ storage: z.string() }) }) }),
  }),
  persistentVolumes: kind(core, {
    spec: z.object({
      claimRef: z.object({ namespace: text, name: text }).optional(),
      /** Where it is, if it is not everywhere. */
      nodeAffinity: z
        .object({
          required: z
            .object({
              nodeSelectorTerms: list(
                z.object({ matchExpressions: list(z.object({ key: z.string(), values: list(z.string()) })) }),
              ),
            })
            .optional(),
        })
        .optional(),
    }),
    status: z.object({ phase: text }).default({ phase: undefined }),
  }),
  deployments: kind("/apis/apps/v1", {
    metadata: metadata.extend({ generation: count.default(0) }),
    spec: z.object({ replicas: count.default(1), progressDeadlineSeconds: count.default(600) }),
    status: z.object({
      observedGeneration: count.default(0),
      conditions,
      readyReplicas: count.default(0),
      availableReplicas: count.default(0),
      replicas: count.default(0),
    }),
  }),
  cronJobs: kind("/apis/batch/v1", {
    spec: z.object({ suspend: z.boolean().default(false) }),
    status: z
      .object({ lastScheduleTime: text, lastSuccessfulTime: text, active: list(z.unknown()) })
      .default({ active: [] }),
  }),
  replicaSets: kind("/apis/apps/v1", {
    spec: z.object({
      replicas: count.default(1),
      template: z.object({ spec: z.object({ containers: list(container) }) }),
    }),
  }),
  services: kind(core, {
    metadata: metadata.extend({ uid: z.string().default(""), namespace: text }),
    spec: z.object({
      type: z.string().default("ClusterIP"),
      clusterIP: z.string().default("None"),
      ports: list(z.object({ name: text, port: count.optional(), nodePort: count.optional() })),
    }),
    status: z.object({ loadBalancer }).default({ loadBalancer: { ingress: [] } }),
  }),
  endpointSlices: kind("/apis/discovery.k8s.io/v1", {
    endpoints: list(
      z.object({
        addresses: z.array(z.string()),
        conditions: z.object({ ready: z.boolean().nullish() }).default({}),
      }),
    ),
    ports: list(z.object({ name: z.string().nullish(), port: z.int().nullish() })),
  }),
  ingresses: kind(networking, {
    metadata: metadata.extend({ uid: z.string().default(""), namespace: text }),
    spec: z
      .object({ ingressClassName: text, rules: list(ingressRule) })
      .default({ ingressClassName: undefined, rules: [] }),
    status: z.object({ loadBalancer }),
  }),
  ingressClasses: kind(networking, { metadata: metadata.extend({ uid: z.string().default("") }) }),
  events: kind(core, {
    involvedObject: z.object({ kind: text, name: text }),
    ...{ type: text, reason: text, message: text },
    ...{ lastTimestamp: z.string().nullish(), eventTime: z.string().nullish() },
  }),
  resourceQuotas: kind(core, { spec: z.object({ hard: strings }) }),
  horizontalPodAutoscalers: kind("/apis/autoscaling/v2", {
    spec: z.object({ minReplicas: count.default(1), maxReplicas: count, metrics: list(metricTarget) }),
    status: z
      .object({ currentMetrics: list(metricNow), conditions })
      .default({ currentMetrics: [], conditions: [] }),
  }),
};
type Kinds = typeof kinds;
type ObjectOf<Kind extends keyof Kinds> = z.output<Kinds[Kind]["schema"]>;

export type Node = ObjectOf<"nodes">;
/** Taints keep pods without a toleration off a node. */
export type Taint = NonNullable<Node["spec"]>["taints"][number];
export type Pod = ObjectOf<"pods">;
export type PersistentVolume = ObjectOf<"persistentVolumes">;
export type ReplicaSet = ObjectOf<"replicaSets">;
export type Service = ObjectOf<"services">;
export type Ingress = ObjectOf<"ingresses">;
export type IngressClass = ObjectOf<"ingressClasses">;
export type Autoscaler = ObjectOf<"horizontalPodAutoscalers">;

/** Fields of every kind: enough to identify an object, and its owner's labels. */
const identified = z.object({
  metadata: z.object({
    name: z.string(),
    uid: z.string(),
    labels: strings,
    annotations: strings,
    ownerReferences: z
      .array(z.object({ uid: z.string().default(""), controller: z.boolean().default(false) }))
      .default([]),
  }),
});

/** The API server returns metadata only if it can; a Deployment's status may be long. */
const metadataOnly = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json";
const metadataLists = metadataOnly.replace("PartialObjectMetadata", "PartialObjectMetadataList");

/** An object of a list; an object that another one created has an owner. */
type Listed = z.output<typeof identified>["metadata"];

/** Identifies an object, and names its owner. */
export type Identity = Pick<Listed, "uid" | "labels">;

type Lists = {
  [Kind in keyof Kinds]: (
    ...namespace: Kind extends "nodes" | "ingressClasses" | "persistentVolumes"
      ? []
      : Kind extends "ingresses" | "services" | "pods"
        ? [] | [string]
        : [string]
  ) => Promise<ObjectOf<Kind>[]>;
};

/** API reads that the checks need; each throws an Error that says why there is no answer. */
export interface KubernetesApi extends Lists {
  /** The API server's version, such as `v1.25.4+k3s1`. */
  version(): Promise<string>;
  /** @param path such as `/api/v1/namespaces/dev`. @returns undefined on 404. */
  object(path: string): Promise<Identity | undefined>;
  /** @param path such as `/api/v1/namespaces/dev/configmaps`. */
  identities(path: string): Promise<Listed[]>;
  /** Versions of Nodes, which rarely change, and of Leases, which change every few seconds. */
  revisions(): Promise<Revisions>;
  /** Whether this user may do something; undefined where the API server does not say. */
  may(act: Act): Promise<boolean | undefined>;
  /** The names of the API groups, such as `apps`. */
  groups(): Promise<readonly string[]>;
  /** Namespaced kinds that can be listed and deleted, including custom resources. */
  namespacedKinds(): Promise<NamespacedKind[]>;
}

/** What a user does with objects of a kind. */
export interface Act {
  readonly verb: string;
  /** Default: the core group. */
  readonly group: string;
  /** Such as `deployments`. */
  readonly resource: string;
  /** Such as `status`. Default: the object itself. */
  readonly subresource?: string | undefined;
  /** Default: any name. */
  readonly name?: string | undefined;
  /** Default: of the whole cluster. */
  readonly namespace?: string | undefined;
}

/** The `resourceVersion` of objects by their UID. */
export type Revisions = ReadonlyMap<string, string>;

interface NamespacedKind {
  readonly kind: string;
  /** The path of its list in a namespace. */
  readonly folder: (namespace: string) => string;
}

/** A reachable API server, and the kubeconfig context for it. */
export interface Reached extends KubernetesApi {
  readonly context: string | undefined;
  close(): void;
}

/**
 * Connects to a lab cluster by its kubeconfig, whose contexts are its servers: the first server that answers, or the first
 * one if none does.
 * @param timeout of a request, in milliseconds. Default: 5000.
 * @throws Error that says what the file lacks.
 */
export const reach = async (file: string, timeout?: number): Promise<Reached> =>
  reachAny(await readText(file), file, timeout);

/** The same for a kubeconfig in memory. @param file its name in messages. */
export async function reachAny(content: string, file: string, timeout?: number): Promise<Reached> {
  const names = contextNames(content, file);
  const apis = await Promise.all(
    (names.length ? names : [undefined]).map(async (context): Promise<Reached> => {
      const api = connect(await accessOf(chooseContext(content, file, context)), timeout);
      return { context, ...api };
    }),
  );
  const [first] = apis as [Reached, ...Reached[]];
  if (apis.length === 1) return first;
  const answers = apis.map(async (api) => ({ api, answers: await api.version().catch(() => undefined) }));
  let chosen = first;
  for (const answer of answers) {
    const { api, answers } = await answer;
    if (answers === undefined) continue;
    chosen = api;
    break;
  }
  for (const api of apis) if (api !== chosen) api.close();
  return chosen;
}

/** Reads one answer of the API server. @param absentIs the result of a 404; default: it is an error. */
type Read = <T>(path: string, schema: z.ZodType<T>, accept?: string, absentIs?: unknown) => Promise<T>;

async function namespacedKinds(read: Read): Promise<NamespacedKind[]> {
  const version = z.object({ groupVersion: z.string() });
  const group = z.object({
    name: z.string(),
    preferredVersion: version,
    versions: z.array(version).default([]),
  });
  const resource = z.object({
    name: z.string(),
    kind: z.string(),
    namespaced: z.boolean(),
    verbs: z.array(z.string()),
  });
  const { groups } = await read("/apis", z.object({ groups: z.array(group) }));
  const apis = [
    "/api/v1",
    // The metrics API stores no objects, and is often unavailable.
    ...groups
      .filter(({ name }) => !/(^|\.)metrics\.k8s\.io$/.test(name))
      // The preferred version comes first, and may lack some kinds.
      .flatMap(({ preferredVersion, versions }) => [preferredVersion, ...versions])
      .map(({ groupVersion }) => `/apis/${groupVersion}`),
  ];
  const lists = await Promise.all(
    [...new Set(apis)].map(async (api) =>
      (await read(api, z.object({ resources: z.array(resource) }))).resources
        .filter(({ name, namespaced }) => namespaced && !name.includes("/"))
        .filter(({ verbs }) => verbs.includes("list") && verbs.includes("delete"))
        .map(({ name, kind }) => ({
          // Identifies a kind in all its versions.
          id: `${api.replace(/\/[^/]+$/, "")}/${name}`,
          kind,
          folder: (namespace: string) => `${api}/namespaces/${namespace}/${name}`,
        })),
    ),
  );
  const all = lists.flat();
  return all.filter(({ id }, index) => all.findIndex((one) => one.id === id) === index);
}

async function revisions(read: Read): Promise<Revisions> {
  const versioned = z.object({ metadata: z.object({ uid: z.string(), resourceVersion: z.string() }) });
  const lists = ["/api/v1/nodes", "/apis/coordination.k8s.io/v1/leases"].map((path) =>
    read(path, z.object({ items: list(versioned) }), metadataLists),
  );
  const items = (await Promise.all(lists)).flatMap((one) => one.items);
  return new Map(items.map(({ metadata: { uid, resourceVersion } }) => [uid, resourceVersion]));
}

const reviews = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
const reviewed = z.object({ status: z.object({ allowed: z.boolean() }) });

async function isAllowed(act: Act, post: (body: string) => Promise<unknown>): Promise<boolean | undefined> {
  const body = { apiVersion: "authorization.k8s.io/v1", kind: "SelfSubjectAccessReview" };
  const answer = await post(JSON.stringify({ ...body, spec: { resourceAttributes: act } })).catch((cause) => {
    if (cause instanceof ApiError) return undefined;
    throw cause;
  });
  return reviewed.safeParse(answer).data?.status.allowed;
}

/** An exercise may simulate a lost machine: a Node without a kubelet. */
const isPretended = (kind: string, { name, labels }: z.output<typeof metadata>): boolean =>
  kind === "nodes" && name.startsWith(`exercise-${labels["k3s-lab/exercise"]}-`);

/**
 * Talks to an API server directly: on a small computer a dozen reads take less time than one start of kubectl. Answers are
 * cached; create a new instance to check again.
 * @param timeout of a request, in milliseconds. Default: 5000.
 */
export function connect(access: KubeAccess, timeout = 5000): KubernetesApi & { close(): void } {
  const { send, close } = requests(access, timeout);
  const asked = new Map<string, Promise<unknown>>();
  // Never show a user and password in the URL.
  const where = `the API server ${access.server.replace(/\/\/[^/]*@/, "//")}`;

  const fetchJson = async (
    path: string,
    accept: string,
    absentIs: unknown,
    body?: string,
  ): Promise<unknown> => {
    const answer = await send(path, { accept, body }).catch((cause: Error) => {
      throw new Error(`${where}: ${cause.message}`);
    });
    if (answer.status === 404 && absentIs !== undefined) return absentIs;
    if (answer.status !== 200 && answer.status !== 201)
      throw new ApiError(`${where} answered ${answer.status} to ${path}`, answer.status);
    try {
      return JSON.parse(answer.body);
    } catch {
      throw new Error(`${where} did not answer ${path} with JSON`);
    }
  };
  const read: Read = async <T>(
    path: string,
    schema: z.ZodType<T>,
    accept = json,
    absentIs?: unknown,
  ): Promise<T> => {
    const answer = asked.get(path) ?? fetchJson(path, accept, absentIs);
    asked.set(path, answer);
    const parsed = schema.safeParse(await answer);
    if (parsed.success) return parsed.data;
    const [issue] = parsed.error.issues;
    throw new Error(`the answer to ${path} is not understood: ${issue?.path.join(".")}: ${issue?.message}`);
  };
  const lists = Object.entries(kinds).map(([name, { group, schema }]) => [
    name,
    async (namespace?: string) => {
      const folder = namespace === undefined ? "" : `/namespaces/${namespace}`;
      const path = `${group}${folder}/${name.toLowerCase()}`;
      const { items } = await read(path, z.object({ items: z.array(schema) }));
      return items.filter(({ metadata }) => !isPretended(name, metadata));
    },
  ]);

  return {
    ...(Object.fromEntries(lists) as Lists),
    version: async () => (await read("/version", z.object({ gitVersion: z.string() }))).gitVersion,
    identities: async (path) =>
      (await read(path, z.object({ items: list(identified) }), metadataLists)).items.map(
        ({ metadata }) => metadata,
      ),
    revisions: () => revisions(read),
    may: (act) => isAllowed(act, (body) => fetchJson(reviews, json, undefined, body)),
    groups: async () =>
      (await read("/apis", z.object({ groups: list(z.object({ name: z.string() })) }))).groups.map(
        ({ name }) => name,
      ),
    namespacedKinds: () => namespacedKinds(read),
    object: (path) =>
      read(path, z.union([identified, z.null()]), metadataOnly, null).then((it) => it?.metadata),
    close,
  };
}

const json = "application/json";

/** Single requests to an API server, over connections that stay open until `close`. */
export function requests(access: KubeAccess, timeout = 5000) {
  const agent = agentFor(access);
  const identity = authorization(access);
  return {
    /** @param accept Default: JSON. */
    send: (
      path: string,
      {
        accept = json,
        ...sent
      }: { readonly accept?: string } & Pick<HttpOptions, "body" | "contentType"> = {},
    ): Promise<HttpAnswer> =>
      get(`${access.server}${path}`, { ...sent, headers: { accept, ...identity }, agent, timeout }),
    close: () => agent.destroy(),
  };
}

export class ApiError extends Error {
  readonly status: number;

  constructor(message: string, status: number) {
    super(message);
    this.status = status;
  }
}

function agentFor({ server, proxy, serverName: servername, insecure, ...trust }: KubeAccess) {
  const options = {
    keepAlive: true,
    maxSockets: 4,
    // Only the kubeconfig's proxy: the one in the environment is not meant for a cluster nearby.
    ...(proxy
      ? { proxyEnv: { HTTP_PROXY: proxy, HTTPS_PROXY: proxy, http_proxy: proxy, https_proxy: proxy } }
      : {}),
  };
  if (!server.startsWith("https:")) return new HttpAgent(options);
  const { ca, cert, key } = trust;
  return new HttpsAgent({
    ...options,
    ...{ ca, cert, key },
    ...(servername ? { servername } : {}),
    rejectUnauthorized: insecure !== true,
  });
}

function authorization({ token, basic, impersonation }: KubeAccess): Required<HttpOptions>["headers"] {
  const credential = token ? `Bearer ${token}` : basic && `Basic ${Buffer.from(basic).toString("base64")}`;
  return { ...(credential ? { authorization: credential } : {}), ...impersonation };
}

/** A taint in the format of kubectl and K3s. */
export const taintInWords = ({ key, value = "", effect }: Taint): string =>
  `${key}${value && `=${value}`}:${effect}`;

/** Whether a pod can serve requests: it runs, is ready, and is not terminating. */
export const isReady = ({ metadata: { deletionTimestamp }, status }: Pod): boolean =>
  deletionTimestamp === undefined &&
  status.conditions.some(({ type, status: value }) => type === "Ready" && value === "True");

/** What keeps a pod from being ready, in Kubernetes' own words, such as `ImagePullBackOff` or `CrashLoopBackOff after OOMKilled`. */
export function podState({ metadata: { deletionTimestamp }, status }: Pod): string {
  if (deletionTimestamp !== undefined) return "Terminating";
  const states = status.containerStatuses.map(
    ({ state }) => state.waiting?.reason ?? state.terminated?.reason,
  );
  const now =
    states.find((state) => state !== undefined) ?? (status.phase === "Running" ? "not ready" : status.phase);
  const ended = status.containerStatuses.map(({ lastState }) => lastState?.terminated?.reason);
  return ended.includes("OOMKilled") && now !== "OOMKilled" ? `${now} after OOMKilled` : now;
}
