import { isIPv4 } from "node:net";
import { isRecord } from "../../stacks/model/schema.ts";
import { type Check, type Finding, runCheck } from "../verify/check.ts";
import { type IngressAddress, parseSelf } from "../verify/ingress.ts";
import { parseAnswers, program } from "../verify/inside.ts";
import type { Cluster } from "./cluster.ts";
import type { Proof } from "./model.ts";
import { valuesAt } from "./values.ts";

/** A cluster whose answers are cached: each question is asked once. */
export interface Asked extends Cluster {
  /** The objects of a kind: all, the one with this name, or those that match a label selector. */
  readonly objects: (kind: string, namespace: string, by?: Selection) => Promise<readonly KubeObject[]>;
}

interface Selection {
  readonly name?: string | undefined;
  readonly selector?: string;
}

type KubeObject = Readonly<Record<string, unknown>>;

/** Starts an empty cache; create a new one to ask again. */
export function askNow(cluster: Cluster): Asked {
  const asked = new Map<string, Promise<readonly KubeObject[]>>();
  const list = async (what: readonly string[]): Promise<readonly KubeObject[]> => {
    const text = await cluster.kubectl(["get", ...what, "--output=json", "--ignore-not-found"]);
    if (text.trim() === "") return [];
    const answer = JSON.parse(text) as KubeObject;
    return Array.isArray(answer.items) ? answer.items : [answer];
  };
  let checks: Promise<readonly Check[]> | undefined;
  const { verify } = cluster;
  return {
    ...cluster,
    verify: verify && (() => (checks ??= verify())),
    objects: (kind, namespace, { name, selector } = {}) => {
      const by = [...(name ? [name] : []), ...(selector ? [`--selector=${selector}`] : [])];
      const what = [kind.toLowerCase(), ...by, `--namespace=${namespace}`];
      const key = what.join(" ");
      const answer = asked.get(key) ?? list(what);
      answer.catch(() => {});
      asked.set(key, answer);
      return answer;
    },
  };
}

type Given<Kind extends keyof Proof> = NonNullable<Proof[Kind]>;

/** How to describe a kind of proof, and how to check it. */
interface ProofKind<Kind extends keyof Proof> {
  readonly title: (given: Given<Kind>) => string;
  readonly expected: (given: Given<Kind>) => string;
  readonly find: (given: Given<Kind>, asked: Asked, namespace: string) => Promise<Finding>;
  /** What to look at next. */
  readonly hint: string;
}

const exactly = (found: string, expected: string): Finding => ({ ok: found === expected, found });

const proofKinds: { readonly [Kind in Exclude<keyof Proof, "title">]: ProofKind<Kind> } = {
  http: {
    title: ({ host, path, https }) =>
      `${https ? "https" : "http"}://${host ?? "ADDRESS"}${path} through the Ingress controller`,
    expected: ({ status, app, body }) =>
      [`status ${status}`, app ? ` from ${app}` : "", body ? `, with "${body}"` : ""].join(""),
    find: askThrough,
    hint: "Follow the request: the Ingress, its Service, the endpoints, their pods.",
  },
  inside: {
    title: ({ from, url, resolve }) =>
      url ? `${url} from a pod with ${from}` : `the name ${resolve} in a pod with ${from}`,
    expected: ({ url }) => (url ? "an answer" : "an address"),
    find: askInside,
    hint: "Check the pod's logs, its /etc/resolv.conf and the NetworkPolicies of its namespace.",
  },
  ready: {
    title: ({ kind, name }) => `${kind} ${name}`,
    expected: ({ replicas }) => `${replicas} pods ready, all of the newest revision`,
    find: async ({ kind, name, namespace, replicas }, asked, own) => {
      const [one] = await asked.objects(kind, namespace ?? own, { name });
      if (one === undefined) return { ok: false, found: "there is none" };
      const number = (path: string) => Number(valuesAt(one, path)[0] ?? 0);
      if (number("status.observedGeneration") < number("metadata.generation"))
        return { ok: false, found: "its controller has not acted on the last change yet" };
      const [wanted, ready] = [number("spec.replicas"), number("status.readyReplicas")];
      const [all, newest] = [number("status.replicas"), number("status.updatedReplicas")];
      const found = `${ready} of ${wanted} pods ready, ${newest} of ${all} of the newest revision`;
      return { ok: [wanted, ready, all, newest].every((value) => value === replicas), found };
    },
    hint: "See why pods are missing or late: `kubectl describe` the Deployment, its newest ReplicaSet and its pods.",
  },
  endpoints: {
    title: ({ service }) => `endpoints of the Service ${service}`,
    expected: ({ ready }) => `${ready} ready`,
    find: async ({ service, namespace, ready }, asked, own) => {
      const selector = `kubernetes.io/service-name=${service}`;
      const slices = await asked.objects("EndpointSlice", namespace ?? own, { selector });
      const all = slices.flatMap((slice) => valuesAt(slice, "endpoints[]"));
      // The field's absence means ready, by the API's own definition.
      const taking = all.filter((one) => valuesAt(one, "conditions.ready")[0] !== false);
      return exactly(`${taking.length} ready`, `${ready} ready`);
    },
    hint: "Compare the Service's selector with the labels of the pods, and its targetPort with their ports.",
  },
  objects: {
    title: ({ kind, name }) => `${kind}${name ? ` ${name}` : " objects"}`,
    expected: ({ where, count }) => {
      const asked = Object.entries(where).map(([path, value]) => `${path} ${value}`);
      return `${count ?? "at least 1"}${asked.length ? ` with ${asked.join(", ")}` : ""}`;
    },
    find: findObjects,
    hint: "Look at the objects: `kubectl get` them with --output yaml.",
  },
  certificate: {
    title: ({ host }) => `the certificate of ${host}`,
    expected: ({ host }) => `valid now, for ${host}`,
    find: async ({ host }, asked) => {
      const [address] = await asked.addresses("websecure");
      if (address === undefined) return { ok: false, found: "the Ingress controller has no address" };
      const { from, until, fault } = await asked.certificate(address, host);
      const [now, day] = [Date.now(), (date: Date) => date.toISOString().slice(0, 10)];
      const found = `valid from ${day(from)} to ${day(until)}, ${fault ?? `for ${host}`}`;
      return { ok: fault === undefined && from.getTime() <= now && now < until.getTime(), found };
    },
    hint: "Read it: `kubectl get secret NAME --output jsonpath='{.data.tls\\.crt}' | base64 -d | openssl x509 -noout -text`.",
  },
  verify: {
    title: (pattern) => `lab verify: ${pattern}`,
    expected: () => "every check passes",
    find: async (pattern, { verify }) => {
      if (verify === undefined) throw new Error("the cluster has no stack files");
      const { matchesGlob } = await import("node:path");
      const checks = (await verify()).filter(({ id }) => matchesGlob(id, pattern));
      const failed = checks.filter(({ ok }) => !ok);
      const passed = `${checks.length - failed.length} of ${checks.length} checks passed`;
      const why = failed.map(({ title, actual }) => `; ${title}: ${actual}`);
      return { ok: checks.length > 0 && failed.length === 0, found: `${passed}${why.join("")}` };
    },
    hint: "Run `scripts/lab verify`.",
  },
};

async function askThrough(
  { host, path, https, status, app, body }: Given<"http">,
  asked: Asked,
  own: string,
): Promise<Finding> {
  const addresses = await asked.addresses(https ? "websecure" : "web");
  if (addresses.length === 0) return { ok: false, found: "the Ingress controller has no address" };
  const one = async (address: IngressAddress): Promise<Finding> => {
    try {
      const answer = await asked.send({ address, host, path, https });
      const self = parseSelf(answer.body);
      const who = self && `${self.namespace === own ? "" : `${self.namespace}/`}${self.app}`;
      const isRight =
        answer.status === status &&
        (app === undefined || who === app) &&
        (body === undefined || answer.body.includes(body));
      return { ok: isRight, found: `status ${answer.status}${who ? ` from ${who}` : ""}` };
    } catch (error) {
      return { ok: false, found: (error as Error).message };
    }
  };
  const all = await Promise.all(addresses.map(async (address) => ({ address, ...(await one(address)) })));
  return {
    ok: all.every(({ ok }) => ok),
    found: all.map(({ address, found }) => `${found} at ${address}`).join("; "),
  };
}

async function askInside(
  { from, namespace, url, resolve }: Given<"inside">,
  asked: Asked,
  own: string,
): Promise<Finding> {
  const where = namespace ?? own;
  const pods = await asked.objects("Pod", where, { selector: from });
  const pod = pods.find(
    (one) =>
      valuesAt(one, "metadata.deletionTimestamp").length === 0 &&
      valuesAt(one, "status.conditions[type=Ready].status")[0] === "True",
  );
  if (pod === undefined) return { ok: false, found: `no pod with ${from} is ready` };
  const name = String(valuesAt(pod, "metadata.name")[0]);
  const questions = { names: resolve ? [resolve] : [], urls: url ? [url] : [], barred: [] };
  const node = ["node", "--eval", program(), JSON.stringify(questions)];
  const said = await asked.kubectl(["exec", name, `--namespace=${where}`, "--", ...node]);
  const { names, urls } = parseAnswers(said);
  const answer = (resolve ? names[resolve] : urls[url ?? ""]) ?? "nothing";
  // An answer is a status, or the pod of one of the lab's apps; a failure is a code in capitals or a sentence.
  const ok = resolve ? isIPv4(answer) : /^[a-z0-9][-a-z0-9]*$/.test(answer);
  return { ok, found: ok && url ? `an answer: ${answer}` : answer };
}

async function findObjects(
  { kind, namespace, name, where, count }: Given<"objects">,
  asked: Asked,
  own: string,
): Promise<Finding> {
  const all = await asked.objects(kind, namespace ?? own, { name });
  const asks = Object.entries(where);
  const fits = (one: KubeObject) =>
    asks.every(([path, wanted]) => {
      const values = valuesAt(one, path);
      return values.some((value) => isLike(inWords(value), String(wanted)));
    });
  // A report must not contain a Secret's values; its annotations may contain them too.
  const isShown = (path: string) =>
    !/^secrets?$/i.test(kind) || /^(type|metadata\.(name|namespace|labels\b.*))$/.test(path);
  const right = all.filter(fits);
  const describe = (one: KubeObject) => {
    const words = (path: string) => valuesAt(one, path).map(isShown(path) ? inWords : () => "…");
    const said = asks.map(([path]) => `${path} ${words(path).join(" ") || "missing"}`);
    return [String(valuesAt(one, "metadata.name")[0]), ...said].join(" ");
  };
  const shown = (right.length > 0 ? right : all).slice(0, 3).map(describe);
  return {
    ok: count === undefined ? right.length > 0 : right.length === count,
    found: [`${right.length} of ${all.length}`, ...shown].join("; "),
  };
}

/** @param wanted a text in which `*` matches anything. */
const isLike = (text: string, wanted: string): boolean =>
  new RegExp(`^${wanted.split("*").map(RegExp.escape).join(".*")}$`, "s").test(text);

const inWords = (value: unknown): string => (isRecord(value) ? JSON.stringify(value) : String(value));

/** Runs one check. @param id the check's name. @param namespace where it looks unless the proof names one. */
export async function prove(proof: Proof, id: string, namespace: string, asked: Asked): Promise<Check> {
  const [kind] = Object.keys(proofKinds).filter((key) => proof[key as keyof Proof] !== undefined);
  return await proveBy(kind as "http", proof, id, namespace, asked);
}

async function proveBy<Kind extends keyof typeof proofKinds>(
  kind: Kind,
  proof: Proof,
  id: string,
  namespace: string,
  asked: Asked,
): Promise<Check> {
  const { title, expected, find, hint } = proofKinds[kind];
  const given = proof[kind] as Given<Kind>;
  const check = await runCheck({
    ...{ id: `${id}/${kind}`, title: proof.title ?? title(given), expected: expected(given), hint },
    actual: () => find(given, asked, namespace),
  });
  // Answers of servers and pods are untrusted: keep them to one line without control characters.
  const actual = check.actual.replaceAll(/\p{Cc}+/gu, " ");
  return {
    ...check,
    actual: actual.length > 1000 ? `${actual.slice(0, 999)}…` : actual,
    hint: check.ok ? "" : hint,
  };
}
