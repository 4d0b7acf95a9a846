import { Agent } from "node:https";
import { isIPv4 } from "node:net";
import { z } from "zod";
import { get, type HttpAnswer } from "../../stacks/lib/http.ts";
import type { KubernetesApi, Node } from "../../stacks/lib/kubernetes.ts";
import { type ClusterPlan, httpsAddress } from "../../stacks/model/cluster-plan.ts";
import {
  type App,
  exampleHost,
  managedIngress,
  managedTraefik,
  type OnCluster,
} from "../../stacks/model/config.ts";
import { canaryPods } from "../../stacks/model/replicas.ts";
import { pathsOf } from "../../stacks/model/routes.ts";
import { namespacesOf } from "./from-pods.ts";

/** An Ingress controller's address, with a non-default port if any, such as `127.0.0.1:8888`. */
export type IngressAddress = string;

/** Traefik's names for http, on port 80, and https, on 443. */
export type EntryPoint = "web" | "websecure";

/** The Ingress controller's addresses from the cluster's API. @param entry Default: `web`. */
async function ingressAddresses(
  api: KubernetesApi,
  config: OnCluster,
  entry: EntryPoint = "web",
): Promise<IngressAddress[]> {
  const namespaces = namespacesOf(config.apps);
  const ingresses = (await Promise.all(namespaces.map((namespace) => api.ingresses(namespace)))).flat();
  const all = ingresses.flatMap(({ status }) =>
    status.loadBalancer.ingress.flatMap(({ ip, hostname }) => ip ?? hostname ?? []),
  );
  if (all.length > 0) return [...new Set(all)];
  if (config.ingress === managedIngress) return nodePortAddresses(api, entry);
  throw new Error(`no Ingress in the namespace ${namespaces.join(", ")} has an address`);
}

/** The addresses of the apps' Ingress controller, from the cluster's stack file or else its API. @param entry Default: `web`. */
export async function addressesOf(
  api: Promise<KubernetesApi>,
  config: OnCluster,
  plan: ClusterPlan | undefined,
  entry: EntryPoint = "web",
): Promise<readonly IngressAddress[]> {
  if (config.ingress === managedIngress || !plan) return ingressAddresses(await api, config, entry);
  return entry === "web" ? plan.ingress : plan.ingress.map((address) => httpsAddress(address, plan));
}

/** The lab's own Traefik on a cluster without a load balancer: its Service's node port on every node. */
async function nodePortAddresses(api: KubernetesApi, entry: EntryPoint): Promise<IngressAddress[]> {
  const { namespace } = managedTraefik;
  const [services, nodes] = await Promise.all([api.services(namespace), api.nodes()]);
  const service = services.find(({ metadata }) => metadata.name === "traefik");
  const port = service?.spec.ports.find(({ name }) => name === entry)?.nodePort;
  if (port === undefined) throw new Error(`the Service ${namespace}/traefik has no node port`);
  return nodesAt(nodes, port);
}

/** Every node's address with a port. */
export const nodesAt = (nodes: readonly Node[], port: number | undefined): string[] =>
  nodes
    .flatMap(({ status }) => status.addresses)
    .filter(({ type, address }) => type === "InternalIP" && isIPv4(address))
    .map(({ address }) => `${address}:${port}`);

/** An app's JSON description of itself. */
const selfSchema = z.object({
  app: z.string(),
  version: z.string(),
  namespace: z.string().default("default"),
  pod: z.string(),
  /** The headers that the Ingress controller added, if the app shows them. */
  request: z.object({ forwarded: z.record(z.string(), z.string()) }).optional(),
});
type Self = z.output<typeof selfSchema>;

/** A short description of an app; two namespaces may have apps of the same name. */
export const describeApp = ({
  app,
  version,
  namespace,
}: Pick<Self, "app" | "version" | "namespace">): string =>
  `${app} ${version}${namespace === "default" ? "" : ` in ${namespace}`}`;

/** The valid answers of an app, in the words of `describeApp`: itself, or its canary. */
export const answersOf = ({
  name,
  version,
  canary,
  namespace,
}: Pick<App, "name" | "version" | "canary" | "namespace">): readonly string[] =>
  [version, ...(canary === undefined ? [] : [canary])].map((one) =>
    describeApp({ app: name, version: one, namespace }),
  );

/** Sends a request; tests pass their own. @param path Default: `/`. */
export type Get = (address: IngressAddress, host: string | undefined, path?: string) => Promise<HttpAnswer>;

/**
 * Requests for `host`, or for the bare address.
 * @param timeout in milliseconds.
 * @param authority use HTTPS and require a certificate for the host by this CA, in PEM; a certificate alone stands for
 * itself. Default: HTTP.
 */
export const getWithin =
  (timeout: number, authority?: string): Get =>
  (address, host, path = "/") =>
    get(`${authority === undefined ? "http" : "https"}://${address}${path}`, {
      headers: { accept: "application/json", ...(host ? { host } : {}) },
      timeout,
      ...(authority && { agent: new Agent({ ca: authority, allowPartialTrustChain: true }) }),
    });

/** A host that nobody has: RFC 2606 keeps `.invalid` free. */
export const unknownHost = "no-such-app.invalid";

/** Most requests for each replica until all of them must have answered. */
export const requestsPerReplica = 20;

/** What answers at an address, in short: an app with its version, or else the status, or the error. */
export const whoAnswers = (
  send: Get,
  address: IngressAddress,
  host: string | undefined,
  path?: string,
): Promise<string> => send(address, host && exampleHost(host), path).then(describeAnswer, noAnswer);

/** How many pods of an app answer at an address, in words, or the error. */
export const podsAnswering = (send: Get, address: IngressAddress, app: App): Promise<string> =>
  meetPods(app, () => send(address, app.host && exampleHost(app.host), pathsOf(app)[0]?.path)).then(
    differentPods,
    noAnswer,
  );

/** Prefix of the result for an address that does not answer. */
export const noAnswerPrefix = "no answer: ";

const noAnswer = ({ message }: Error): string => `${noAnswerPrefix}${message}`;

/** How many pods answered, in words. */
export const differentPods = (count: number): string => (count === 1 ? "1 pod" : `${count} different pods`);

export function describeAnswer({ status, body }: HttpAnswer): string {
  const self = parseSelf(body);
  return status === 200 && self ? describeApp(self) : `status ${status}`;
}

/** The app that answered; undefined if it was not one of the lab's. */
export function parseSelf(body: string): Self | undefined {
  try {
    return selfSchema.safeParse(JSON.parse(body)).data;
  } catch {
    return undefined;
  }
}

/** An app's answer; undefined if something else answered. */
export function selfOf({ name, namespace }: Pick<App, "name" | "namespace">, body: string): Self | undefined {
  const self = parseSelf(body);
  return self?.app === name && self.namespace === namespace ? self : undefined;
}

async function meetPods(app: App, send: () => Promise<HttpAnswer>): Promise<number> {
  const pods = new Set<string>();
  const replicas = app.replicas + canaryPods(app);
  for (let requests = 0; pods.size < replicas && requests < requestsPerReplica; requests++)
    for (const { body } of await Promise.all(Array.from({ length: replicas }, send))) {
      const self = selfOf(app, body);
      if (self) pods.add(self.pod);
    }
  // An autoscaled app may have more.
  return app.autoscaling ? Math.min(pods.size, replicas) : pods.size;
}
