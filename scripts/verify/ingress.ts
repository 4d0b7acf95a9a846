import { z } from "zod";
import { get, type HttpAnswer } from "../../stacks/lib/http.ts";
import { type App, exampleHost } from "../../stacks/model/config.ts";
import { type Answer, ask } from "./check.ts";

/** Where an Ingress controller listens; the port is 80 unless it is part of it, such as `127.0.0.1:8888`. */
export type IngressAddress = string;

/** What an app says of itself when it is asked for JSON. */
const selfSchema = z.object({
  app: z.string(),
  version: z.string(),
  namespace: z.string().default("default"),
  pod: z.string(),
});
export type Self = z.output<typeof selfSchema>;

/** Which app it is, in few words; two namespaces may have one of the same name. */
export const describeApp = ({ app, version, namespace }: Omit<Self, "pod">): string =>
  `${app} ${version}${namespace === "default" ? "" : ` in ${namespace}`}`;

/** How a request is sent; tests put their own in its place. */
export type Get = (address: IngressAddress, host: string | undefined) => Promise<HttpAnswer>;

/**
 * Requests that name `host`, or just the address, as a browser does when no name is known.
 * @param timeout in milliseconds.
 */
export const getWithin =
  (timeout: number): Get =>
  (address, host) =>
    get(`http://${address}/`, {
      headers: { accept: "application/json", ...(host ? { host } : {}) },
      timeout,
    });

/** A host that nobody has: RFC 2606 keeps `.invalid` free. */
export const unknownHost = "no-such-app.invalid";

/** What was found out by requests from outside. */
export interface IngressFindings {
  /** By `answerKey`: who answered, or why nobody did. */
  readonly answers: ReadonlyMap<string, string>;
  /** By `appKey`, for each app that should have pods: how many of them answered, or why none did. */
  readonly pods: ReadonlyMap<string, string>;
}

export const answerKey = (address: IngressAddress, host: string | undefined): string =>
  `${address} ${host ?? ""}`;

/** Tells an app from those of the same name in other namespaces. */
export const appKey = ({ namespace, name }: Pick<App, "namespace" | "name">): string =>
  `${namespace}/${name}`;

/** Most requests for each replica until all of them must have answered. */
export const requestsPerReplica = 20;

/** Asks for every app, an unknown host and no host through every address, and each app until all its pods have answered. */
export async function askIngress(
  apps: readonly App[],
  addresses: readonly IngressAddress[],
  send: Get,
): Promise<IngressFindings> {
  const hosts = [...apps.flatMap(({ host }) => host ?? []), unknownHost, undefined];
  const answers = new Map<string, string>();
  const pods = new Map<string, string>();
  const questions = addresses.flatMap((address) =>
    hosts.map(async (host) => {
      const answer = await ask(() => send(address, host && exampleHost(host)));
      answers.set(answerKey(address, host), inWords(answer, describeAnswer));
    }),
  );
  const [first] = addresses;
  const counts = apps.map(async (app) => {
    if (app.replicas === 0 || first === undefined) return;
    const met = await ask(() => meetPods(app, () => send(first, app.host && exampleHost(app.host))));
    pods.set(appKey(app), inWords(met, differentPods));
  });
  await Promise.all([...questions, ...counts]);
  return { answers, pods };
}

const inWords = <T>(answer: Answer<T>, words: (value: T) => string): string =>
  answer.ok ? words(answer.value) : `no answer: ${answer.reason}`;

/** How many pods answered, in words. */
export const differentPods = (count: number): string => (count === 1 ? "1 pod" : `${count} different pods`);

/** Who answered, in few words: an app with its version, or else the status. */
export function describeAnswer({ status, body }: HttpAnswer): string {
  const self = parseSelf(body);
  return status === 200 && self ? describeApp(self) : `status ${status}`;
}

function parseSelf(body: string): Self | undefined {
  try {
    return selfSchema.safeParse(JSON.parse(body)).data;
  } catch {
    return undefined;
  }
}

async function meetPods(
  { name, namespace, replicas }: App,
  send: () => Promise<HttpAnswer>,
): Promise<number> {
  const pods = new Set<string>();
  let requests = 0;
  while (pods.size < replicas && requests < replicas * requestsPerReplica) {
    const batch = await Promise.all(Array.from({ length: replicas }, send));
    requests += batch.length;
    for (const { body } of batch) {
      const self = parseSelf(body);
      if (self?.app === name && self.namespace === namespace) pods.add(self.pod);
    }
  }
  return pods.size;
}
