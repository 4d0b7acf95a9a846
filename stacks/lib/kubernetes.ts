import { readFile } from "node:fs/promises";
import { Agent as HttpAgent } from "node:http";
import { Agent as HttpsAgent } from "node:https";
import { execa } from "execa";
import { parse } from "yaml";
import { z } from "zod";
import { chooseContext, contextNames, type KubeContext } from "../model/kubeconfig.ts";
import { get } from "./http.ts";

const strings = z.record(z.string(), z.string()).default({});
const metadata = z.object({
  name: z.string(),
  labels: strings,
  annotations: strings,
  deletionTimestamp: z.string().optional(),
  creationTimestamp: z.string().optional(),
  ownerReferences: z.array(z.object({ kind: z.string(), name: z.string() })).optional(),
});
const condition = z.object({ type: z.string(), status: z.string(), message: z.string().optional() });

const identified = z.object({
  metadata: z.object({
    name: z.string(),
    uid: z.string(),
    labels: strings,
    ownerReferences: z.array(z.looseObject({})).default([]),
  }),
});
const absent = z.null();

/** The API server answers with metadata alone where it can; a Deployment's status may be long. */
const metadataOnly = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json";
const metadataLists = metadataOnly.replace("PartialObjectMetadata", "PartialObjectMetadataList");

/** What tells an object from another of the same name, and whose mark it carries. */
export type Identity = Pick<z.output<typeof identified>["metadata"], "uid" | "labels">;

/** An object of a list; what another object made has an owner. */
export type Listed = z.output<typeof identified>["metadata"];

const groupList = z.object({
  groups: z.array(z.object({ name: z.string(), preferredVersion: z.object({ groupVersion: z.string() }) })),
});
const resourceList = z.object({
  resources: z.array(
    z.object({ name: z.string(), kind: z.string(), namespaced: z.boolean(), verbs: z.array(z.string()) }),
  ),
});

/** The parts of Kubernetes objects that the checks look at. */
const schemas = {
  node: z.object({
    metadata,
    status: z.object({
      addresses: z.array(z.object({ type: z.string(), address: z.string() })).default([]),
      conditions: z.array(condition).default([]),
      nodeInfo: z.object({ kubeletVersion: z.string() }),
    }),
  }),
  pod: z.object({
    metadata,
    spec: z.object({
      nodeName: z.string().optional(),
      containers: z
        .array(z.object({ ports: z.array(z.object({ containerPort: z.int() })).default([]) }))
        .default([]),
    }),
    status: z.object({
      phase: z.string(),
      podIP: z.string().optional(),
      conditions: z.array(condition).default([]),
      containerStatuses: z
        .array(
          z.object({
            state: z
              .object({
                waiting: z.object({ reason: z.string().optional() }).optional(),
                terminated: z.object({ reason: z.string().optional() }).optional(),
              })
              .default({}),
            lastState: z
              .object({ terminated: z.object({ reason: z.string().optional() }).optional() })
              .optional(),
          }),
        )
        .default([]),
    }),
  }),
  deployment: z.object({
    metadata,
    spec: z.object({ replicas: z.int().default(1) }),
    status: z.object({ readyReplicas: z.int().default(0), replicas: z.int().default(0) }),
  }),
  service: z.object({
    metadata,
    spec: z.object({
      clusterIP: z.string().default("None"),
      ports: z.array(z.object({ name: z.string().optional(), nodePort: z.int().optional() })).default([]),
    }),
  }),
  endpointSlice: z.object({
    metadata,
    endpoints: z
      .array(
        z.object({
          addresses: z.array(z.string()),
          conditions: z.object({ ready: z.boolean().nullish() }).default({}),
        }),
      )
      .nullish()
      .transform((endpoints) => endpoints ?? []),
  }),
  ingress: z.object({
    metadata,
    status: z.object({
      loadBalancer: z
        .object({
          // A load balancer has an address or, as Docker Desktop's `localhost`, a name.
          ingress: z
            .array(z.object({ ip: z.string().optional(), hostname: z.string().optional() }))
            .default([]),
        })
        .default({ ingress: [] }),
    }),
  }),
  ingressClass: z.object({ metadata: metadata.extend({ uid: z.string().default("") }) }),
  resourceQuota: z.object({ metadata, spec: z.object({ hard: strings }) }),
} as const;

export type Node = z.output<typeof schemas.node>;
export type Pod = z.output<typeof schemas.pod>;
export type Deployment = z.output<typeof schemas.deployment>;
export type Service = z.output<typeof schemas.service>;
export type EndpointSlice = z.output<typeof schemas.endpointSlice>;
export type Ingress = z.output<typeof schemas.ingress>;
export type IngressClass = z.output<typeof schemas.ingressClass>;
export type ResourceQuota = z.output<typeof schemas.resourceQuota>;

/** Reads of the API server that the checks need; each throws an Error that says why there is no answer. */
export interface KubernetesApi {
  /** The API server's own version, such as `v1.25.4+k3s1`. */
  version(): Promise<string>;
  /** @param path such as `/api/v1/namespaces/dev`. @returns undefined where the API server says that there is none. */
  object(path: string): Promise<Identity | undefined>;
  /** @param path such as `/api/v1/namespaces/dev/configmaps`. */
  identities(path: string): Promise<Listed[]>;
  /** What a namespace can hold: kinds that can be listed and deleted, those of custom resources among them. */
  namespacedKinds(): Promise<NamespacedKind[]>;
  nodes(): Promise<Node[]>;
  pods(namespace: string): Promise<Pod[]>;
  deployments(namespace: string): Promise<Deployment[]>;
  services(namespace: string): Promise<Service[]>;
  endpointSlices(namespace: string): Promise<EndpointSlice[]>;
  ingresses(namespace: string): Promise<Ingress[]>;
  ingressClasses(): Promise<IngressClass[]>;
  resourceQuotas(namespace: string): Promise<ResourceQuota[]>;
}

/** A kind of objects in namespaces. */
export interface NamespacedKind {
  readonly kind: string;
  /** Where the API server lists them in a namespace. */
  readonly folder: (namespace: string) => string;
}

/** How to reach and be trusted by an API server. */
export interface KubeAccess {
  readonly server: string;
  readonly ca?: string;
  readonly cert?: string;
  readonly key?: string;
  readonly token?: string;
  readonly basic?: string;
  /** The name in the server's certificate, where it is not that of the URL. */
  readonly serverName?: string;
  /** Whether any certificate of the server will do. Default: false. */
  readonly insecure?: boolean;
  /** URL of an HTTP proxy on the way. */
  readonly proxy?: string;
}

/**
 * Reads a kubeconfig file as kubectl does.
 * @param context Default: the file's current one.
 * @throws Error that says what is missing; it never holds a key.
 */
export const readKubeconfig = async (file: string, context?: string): Promise<KubeAccess> =>
  accessOf(chooseContext(await readText(file), file, context));

/**
 * What a context says, with the files it names read and its exec plugin asked.
 * @throws Error that says which file or plugin failed, and never holds a credential.
 */
export async function accessOf({ name, cluster, user }: KubeContext): Promise<KubeAccess> {
  const proxy = cluster["proxy-url"];
  if (proxy !== undefined && !/^https?:/.test(proxy))
    throw new Error(
      `the context "${name}" goes through ${proxy.split(":")[0]}, and the lab only knows http proxies: remove proxy-url and tunnel to the cluster yourself`,
    );
  const pem = async (data?: string, path?: string): Promise<string | undefined> =>
    data ? Buffer.from(data, "base64").toString() : path && readText(path);
  const [ca, cert, key, fileToken, plugin] = await Promise.all([
    pem(cluster["certificate-authority-data"], cluster["certificate-authority"]),
    pem(user["client-certificate-data"], user["client-certificate"]),
    pem(user["client-key-data"], user["client-key"]),
    user.tokenFile && readText(user.tokenFile),
    user.exec ? askPlugin(user.exec, cluster) : undefined,
  ]);
  // kubectl takes the file's token before the one that is written down.
  const token = fileToken?.trim() || user.token || plugin?.token;
  const pair =
    cert && key ? { cert, key } : plugin?.cert && plugin.key ? { cert: plugin.cert, key: plugin.key } : {};
  return {
    server: cluster.server.replace(/\/$/, ""),
    ...(ca ? { ca } : {}),
    ...pair,
    ...(token ? { token } : {}),
    ...(user.username && user.password ? { basic: `${user.username}:${user.password}` } : {}),
    ...(cluster["tls-server-name"] ? { serverName: cluster["tls-server-name"] } : {}),
    ...(cluster["insecure-skip-tls-verify"] ? { insecure: true } : {}),
    ...(proxy ? { proxy } : {}),
  };
}

const credentialSchema = z.object({
  status: z.object({
    token: z.string().optional(),
    clientCertificateData: z.string().optional(),
    clientKeyData: z.string().optional(),
  }),
});

/** Seconds that an exec plugin may take. */
const pluginWithin = 30;

/** Asks an exec plugin for a credential, as client-go does. */
async function askPlugin(
  {
    command,
    args,
    env,
    apiVersion,
    provideClusterInfo,
    installHint,
  }: NonNullable<KubeContext["user"]["exec"]>,
  { server, "certificate-authority-data": ca }: KubeContext["cluster"],
): Promise<{
  readonly token?: string | undefined;
  readonly cert?: string | undefined;
  readonly key?: string | undefined;
}> {
  const info = {
    apiVersion,
    kind: "ExecCredential",
    spec: {
      interactive: false,
      ...(provideClusterInfo ? { cluster: { server, "certificate-authority-data": ca } } : {}),
    },
  };
  const result = await execa(command, args ?? [], {
    env: {
      ...Object.fromEntries((env ?? []).map(({ name, value }) => [name, value])),
      KUBERNETES_EXEC_INFO: JSON.stringify(info),
    },
    stdin: "ignore",
    timeout: pluginWithin * 1000,
    reject: false,
  });
  const parsed = result.failed ? undefined : credentialSchema.safeParse(parseYaml(result.stdout)).data;
  if (parsed === undefined) {
    // Its standard output may hold a credential; its standard error is meant for a person.
    const why = result.timedOut
      ? `no answer within ${pluginWithin} s`
      : result.stderr?.trim().split("\n").at(-1) || result.code || `status ${result.exitCode}`;
    throw new Error(
      `the kubeconfig's plugin ${command} gave no credential: ${why}${installHint ? `. ${installHint.trim()}` : ""}`,
    );
  }
  const { token, clientCertificateData: cert, clientKeyData: key } = parsed.status;
  return { token, cert, key };
}

/** An API server that was reached, and the context of the kubeconfig that led there. */
export interface Reached extends KubernetesApi {
  readonly context: string | undefined;
  close(): void;
}

/**
 * Reaches a cluster of the lab's by its kubeconfig, whose contexts are its servers: the first server that answers, or
 * the first at all where none does.
 * @param timeout of a question, in milliseconds. Default: 5000.
 * @throws Error that says what the file lacks.
 */
export const reach = async (file: string, timeout?: number): Promise<Reached> =>
  reachAny(await readText(file), file, timeout);

/** The same for a kubeconfig that is at hand. @param file what it is called in messages. */
export async function reachAny(content: string, file: string, timeout?: number): Promise<Reached> {
  const names = contextNames(content, file);
  const apis = await Promise.all(
    (names.length ? names : [undefined]).map(async (context) => ({
      context,
      ...connect(await accessOf(chooseContext(content, file, context)), timeout),
    })),
  );
  const [first] = apis as [Reached, ...Reached[]];
  if (apis.length === 1) return first;
  const answers = apis.map((api) =>
    api.version().then(
      () => true,
      () => false,
    ),
  );
  let chosen: Reached = first;
  for (const [index, api] of apis.entries())
    if (await answers[index]) {
      chosen = api;
      break;
    }
  for (const api of apis) if (api !== chosen) api.close();
  return chosen;
}

async function readText(file: string): Promise<string> {
  return readFile(file, "utf8").catch((cause: NodeJS.ErrnoException) => {
    throw new Error(
      cause.code === "ENOENT" ? `there is no ${file}` : `${file} cannot be read: ${cause.code}`,
    );
  });
}

function parseYaml(text: string): unknown {
  try {
    return parse(text);
  } catch {
    return undefined;
  }
}

/** Reads one answer of the API server. @param absentIs what a 404 counts as; default: it is an error. */
type Read = <T>(path: string, schema: z.ZodType<T>, accept?: string, absentIs?: unknown) => Promise<T>;

/** The kinds of objects in namespaces that can be listed and deleted. */
async function namespacedKinds(
  read: Read,
): Promise<{ readonly kind: string; readonly folder: (namespace: string) => string }[]> {
  const { groups } = await read("/apis", groupList);
  const apis = [
    "/api/v1",
    // Nothing is kept in what serves measurements, which is often away.
    ...groups
      .filter(({ name }) => !/(^|\.)metrics\.k8s\.io$/.test(name))
      .map(({ preferredVersion }) => `/apis/${preferredVersion.groupVersion}`),
  ];
  const lists = await Promise.all(
    apis.map(async (api) =>
      (await read(api, resourceList)).resources
        .filter(({ name, namespaced }) => namespaced && !name.includes("/"))
        .filter(({ verbs }) => verbs.includes("list") && verbs.includes("delete"))
        .map(({ name, kind }) => ({
          kind,
          folder: (namespace: string) => `${api}/namespaces/${namespace}/${name}`,
        })),
    ),
  );
  return lists.flat();
}

/**
 * Talks to an API server directly: on a small computer a dozen reads take less time than one start of kubectl.
 * What was read once is not asked again; make a new one to check again.
 * @param timeout of a question, in milliseconds. Default: 5000.
 */
export function connect(access: KubeAccess, timeout = 5000): KubernetesApi & { close(): void } {
  const { server } = access;
  const agent = agentFor(access);
  const headers = { accept: "application/json", ...authorization(access) };
  const asked = new Map<string, Promise<unknown>>();
  const where = `the API server ${server}`;

  const fetchJson = async (path: string, accept: string, absentIs: unknown): Promise<unknown> => {
    const options = { headers: { ...headers, accept }, agent, timeout };
    const answer = await get(`${server}${path}`, options).catch((cause: Error) => {
      throw new Error(`${where}: ${cause.message}`);
    });
    if (answer.status === 404 && absentIs !== undefined) return absentIs;
    if (answer.status !== 200)
      throw new ApiError(`${where} answered ${answer.status} to ${path}`, answer.status);
    try {
      return JSON.parse(answer.body);
    } catch {
      throw new Error(`${where} answered something else than JSON to ${path}`);
    }
  };
  const read: Read = async <T>(
    path: string,
    schema: z.ZodType<T>,
    accept = headers.accept,
    absentIs?: unknown,
  ): Promise<T> => {
    const answer = asked.get(path) ?? fetchJson(path, accept, absentIs);
    asked.set(path, answer);
    const parsed = schema.safeParse(await answer);
    if (parsed.success) return parsed.data;
    const [issue] = parsed.error.issues;
    throw new Error(`the answer to ${path} is not understood: ${issue?.path.join(".")}: ${issue?.message}`);
  };
  const list = async <T>(path: string, schema: z.ZodType<T>): Promise<T[]> =>
    (await read(path, z.object({ items: z.array(schema) }))).items;

  return {
    version: async () => (await read("/version", z.object({ gitVersion: z.string() }))).gitVersion,
    identities: async (path) => {
      // A list of metadata that is empty comes as null.
      const { items } = await read(path, z.object({ items: z.array(identified).nullish() }), metadataLists);
      return (items ?? []).map(({ metadata }) => metadata);
    },
    namespacedKinds: () => namespacedKinds(read),
    object: (path) =>
      read(path, z.union([identified, absent]), metadataOnly, null).then((it) => it?.metadata),
    nodes: () => list("/api/v1/nodes", schemas.node),
    pods: (namespace) => list(`/api/v1/namespaces/${namespace}/pods`, schemas.pod),
    services: (namespace) => list(`/api/v1/namespaces/${namespace}/services`, schemas.service),
    deployments: (namespace) => list(`/apis/apps/v1/namespaces/${namespace}/deployments`, schemas.deployment),
    endpointSlices: (namespace) =>
      list(`/apis/discovery.k8s.io/v1/namespaces/${namespace}/endpointslices`, schemas.endpointSlice),
    ingresses: (namespace) =>
      list(`/apis/networking.k8s.io/v1/namespaces/${namespace}/ingresses`, schemas.ingress),
    ingressClasses: () => list("/apis/networking.k8s.io/v1/ingressclasses", schemas.ingressClass),
    resourceQuotas: (namespace) =>
      list(`/api/v1/namespaces/${namespace}/resourcequotas`, schemas.resourceQuota),
    close: () => agent.destroy(),
  };
}

/** An answer that is no success. */
export class ApiError extends Error {
  readonly status: number;

  constructor(message: string, status: number) {
    super(message);
    this.status = status;
  }
}

function agentFor({
  server,
  ca,
  cert,
  key,
  serverName,
  insecure,
  proxy,
}: KubeAccess): HttpAgent | HttpsAgent {
  const options = {
    keepAlive: true,
    maxSockets: 4,
    // The kubeconfig's proxy and no other: what the environment names is not meant for a cluster nearby.
    ...(proxy
      ? { proxyEnv: { HTTP_PROXY: proxy, HTTPS_PROXY: proxy, http_proxy: proxy, https_proxy: proxy } }
      : {}),
  };
  if (!server.startsWith("https:")) return new HttpAgent(options);
  return new HttpsAgent({
    ...options,
    ...(ca ? { ca } : {}),
    ...(cert && key ? { cert, key } : {}),
    ...(serverName ? { servername: serverName } : {}),
    ...(insecure ? { rejectUnauthorized: false } : {}),
  });
}

function authorization({ token, basic }: KubeAccess): Readonly<Record<string, string>> {
  if (token) return { authorization: `Bearer ${token}` };
  return basic ? { authorization: `Basic ${Buffer.from(basic).toString("base64")}` } : {};
}

/** Whether a pod takes requests: it runs, is ready, and is not on its way out. */
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
