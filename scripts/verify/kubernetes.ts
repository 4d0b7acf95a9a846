import { readFile } from "node:fs/promises";
import { Agent as HttpAgent } from "node:http";
import { Agent as HttpsAgent } from "node:https";
import { dirname, resolve } from "node:path";
import { parse } from "yaml";
import { z } from "zod";
import { get } from "../http.ts";

const strings = z.record(z.string(), z.string()).default({});
const metadata = z.object({
  name: z.string(),
  labels: strings,
  annotations: strings,
  deletionTimestamp: z.string().optional(),
});
const condition = z.object({ type: z.string(), status: z.string(), message: z.string().optional() });

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
  ingressClass: z.object({ metadata }),
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
  nodes(): Promise<Node[]>;
  pods(namespace: string): Promise<Pod[]>;
  deployments(namespace: string): Promise<Deployment[]>;
  services(namespace: string): Promise<Service[]>;
  endpointSlices(namespace: string): Promise<EndpointSlice[]>;
  ingresses(namespace: string): Promise<Ingress[]>;
  ingressClasses(): Promise<IngressClass[]>;
  resourceQuotas(namespace: string): Promise<ResourceQuota[]>;
}

/** How to reach and be trusted by an API server. */
export interface KubeAccess {
  readonly server: string;
  readonly ca?: string;
  readonly cert?: string;
  readonly key?: string;
  readonly token?: string;
}

const named = z.object({ name: z.string() });
const kubeconfigSchema = z.object({
  "current-context": z.string().optional(),
  contexts: z.array(named.extend({ context: z.object({ cluster: z.string(), user: z.string() }) })),
  clusters: z.array(
    named.extend({
      cluster: z.object({
        server: z.string(),
        "certificate-authority-data": z.string().optional(),
        "certificate-authority": z.string().optional(),
      }),
    }),
  ),
  users: z.array(
    named.extend({
      user: z.object({
        "client-certificate-data": z.string().optional(),
        "client-certificate": z.string().optional(),
        "client-key-data": z.string().optional(),
        "client-key": z.string().optional(),
        token: z.string().optional(),
      }),
    }),
  ),
});

/**
 * Reads a kubeconfig file.
 * @param context Default: the file's current one.
 * @throws Error that says what is missing; it never holds a key.
 */
export async function readKubeconfig(file: string, context?: string): Promise<KubeAccess> {
  const config = await parseKubeconfig(file);
  const wanted = context ?? config["current-context"];
  const chosen = config.contexts.find(({ name }) => name === wanted)?.context;
  const cluster = config.clusters.find(({ name }) => name === chosen?.cluster)?.cluster;
  const user = config.users.find(({ name }) => name === chosen?.user)?.user;
  if (!cluster || !user)
    throw new Error(`${file} has no context ${wanted ?? "(no current one)"} with a cluster and a user`);
  const pem = async (data?: string, path?: string): Promise<string | undefined> =>
    data ? Buffer.from(data, "base64").toString() : path && readFile(resolve(dirname(file), path), "utf8");
  const [ca, cert, key] = await Promise.all([
    pem(cluster["certificate-authority-data"], cluster["certificate-authority"]),
    pem(user["client-certificate-data"], user["client-certificate"]),
    pem(user["client-key-data"], user["client-key"]),
  ]);
  return {
    server: cluster.server.replace(/\/$/, ""),
    ...(ca ? { ca } : {}),
    ...(cert && key ? { cert, key } : {}),
    ...(user.token ? { token: user.token } : {}),
  };
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
export async function reach(file: string, timeout?: number): Promise<Reached> {
  const { contexts } = await parseKubeconfig(file);
  const names = contexts.length ? contexts.map(({ name }) => name) : [undefined];
  const apis = await Promise.all(
    names.map(async (context) => ({ context, ...connect(await readKubeconfig(file, context), timeout) })),
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

async function parseKubeconfig(file: string): Promise<z.output<typeof kubeconfigSchema>> {
  const text = await readFile(file, "utf8").catch((cause: NodeJS.ErrnoException) => {
    throw new Error(
      cause.code === "ENOENT" ? `there is no ${file}` : `${file} cannot be read: ${cause.code}`,
    );
  });
  const parsed = kubeconfigSchema.safeParse(parseYaml(text));
  if (!parsed.success)
    throw new Error(`${file} is not a kubeconfig (${parsed.error.issues[0]?.path.join(".")})`);
  return parsed.data;
}

function parseYaml(text: string): unknown {
  try {
    return parse(text);
  } catch {
    return undefined;
  }
}

/**
 * Talks to an API server directly: on a small computer a dozen reads take less time than one start of kubectl.
 * What was read once is not asked again; make a new one to look again.
 * @param timeout of a question, in milliseconds. Default: 5000.
 */
export function connect(
  { server, token, ...tls }: KubeAccess,
  timeout = 5000,
): KubernetesApi & { close(): void } {
  const options = { keepAlive: true, maxSockets: 4 };
  const agent = server.startsWith("https:") ? new HttpsAgent({ ...options, ...tls }) : new HttpAgent(options);
  const headers = { accept: "application/json", ...(token ? { authorization: `Bearer ${token}` } : {}) };
  const asked = new Map<string, Promise<unknown>>();

  const fetchJson = async (path: string): Promise<unknown> => {
    const where = `the API server ${server}`;
    const answer = await get(`${server}${path}`, { headers, agent, timeout }).catch((cause: Error) => {
      throw new Error(`${where}: ${cause.message}`);
    });
    if (answer.status !== 200) throw new Error(`${where} answered ${answer.status} to ${path}`);
    try {
      return JSON.parse(answer.body);
    } catch {
      throw new Error(`${where} answered something else than JSON to ${path}`);
    }
  };
  const read = async <T>(path: string, schema: z.ZodType<T>): Promise<T> => {
    const answer = asked.get(path) ?? fetchJson(path);
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

/** Whether a pod takes requests: it runs, is ready, and is not on its way out. */
export const isReady = ({ metadata: { deletionTimestamp }, status }: Pod): boolean =>
  deletionTimestamp === undefined &&
  status.conditions.some(({ type, status: value }) => type === "Ready" && value === "True");

/** What keeps a pod from being ready, in Kubernetes' own word, such as `ImagePullBackOff`. */
export function podState({ metadata: { deletionTimestamp }, status }: Pod): string {
  if (deletionTimestamp !== undefined) return "Terminating";
  const states = status.containerStatuses.map(
    ({ state }) => state.waiting?.reason ?? state.terminated?.reason,
  );
  return (
    states.find((state) => state !== undefined) ?? (status.phase === "Running" ? "not ready" : status.phase)
  );
}
