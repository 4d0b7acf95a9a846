import { Agent } from "node:https";
import { connect as connectTls } from "node:tls";
import { LabError, refusal } from "../../stacks/lib/errors.ts";
import { get, type HttpAnswer } from "../../stacks/lib/http.ts";
import { labId } from "../../stacks/lib/lab-id.ts";
import { root } from "../../stacks/lib/paths.ts";
import { type ClusterPlan, httpsAddress, planOf, readClusterPlan } from "../../stacks/model/cluster-plan.ts";
import { isOnCluster, type OnCluster, programOf, readOnCluster } from "../../stacks/model/config.ts";
import { kubeconfigOf, kubectl, type Place, placeOf, reachPlace } from "../../stacks/observe/place.ts";
import type { Check } from "../verify/check.ts";
import { verify } from "../verify/index.ts";
import { addressesOf, type EntryPoint, type IngressAddress } from "../verify/ingress.ts";
import { slownessOf } from "../verify/slowness.ts";
import { valuesAt } from "./values.ts";

/** Runs kubectl. @returns its output. @throws LabError with its error. */
export type Kubectl = (args: readonly string[], input?: string) => Promise<string>;

/** A request through the Ingress controller. */
export interface Request {
  readonly address: IngressAddress;
  readonly host: string | undefined;
  readonly path: string;
  readonly https: boolean;
}

/** A server's certificate. */
export interface ServedCertificate {
  readonly from: Date;
  readonly until: Date;
  /** Why it is not valid for the host. Default: it is. */
  readonly fault: string | undefined;
}

/** A cluster for exercises and specs; tests pass their own. */
export interface Cluster {
  readonly kubectl: Kubectl;
  /** Where the Ingress controller listens. */
  readonly addresses: (entry: EntryPoint) => Promise<readonly IngressAddress[]>;
  readonly send: (request: Request) => Promise<HttpAnswer>;
  readonly certificate: (address: IngressAddress, host: string) => Promise<ServedCertificate>;
  /** The checks of `lab verify`; undefined for a cluster without stack files. */
  readonly verify: (() => Promise<readonly Check[]>) | undefined;
}

/** The cluster that a stack's apps run on. */
export interface AppsCluster extends Cluster {
  /** The id of this checkout's lab, which marks the exercises on the cluster. */
  readonly lab: string;
  readonly config: OnCluster;
}

const kubectlOn =
  (place: Place, patience: number, signal: AbortSignal): Kubectl =>
  async (args, input = "") => {
    const options = { input, timeout: 180_000 * patience, cancelSignal: signal };
    const result = await kubectl(place, args, options);
    if (!result.failed) return result.stdout;
    const said = result.stderr?.trim().split("\n").at(-1) || result.shortMessage;
    throw new LabError(`kubectl ${args.slice(0, 3).join(" ")}: ${said}`, { cause: result });
  };

/** Connects to the cluster of a stack of apps while the work runs. */
export async function onAppsCluster<T>(
  stack: string,
  signal: AbortSignal,
  work: (cluster: AppsCluster) => Promise<T>,
): Promise<T> {
  const config = await readOnCluster(stack, root);
  // Kept from now on, should it be lost: an exercise must be found again by it.
  const lab = await labId();
  return onCluster({ stacks: [stack], signal }, (cluster) => work({ ...cluster, lab, config }));
}

/** Which cluster to use: that of the lab's stacks, or any in a kubeconfig. */
export interface Where {
  readonly stacks: readonly string[];
  readonly kubeconfig?: string | undefined;
  /** Default: the kubeconfig's current context. */
  readonly context?: string | undefined;
  /** The Ingress controller's address. Default: from the stack files, or else the cluster's Ingresses or nodes. */
  readonly address?: string | undefined;
  /** The port of this address for https. Default: 443. */
  readonly httpsPort?: string | undefined;
  readonly signal: AbortSignal;
}

/** Connects to a cluster while the work runs. @throws LabError if it does not answer. */
export async function onCluster<T>(where: Where, work: (cluster: Cluster) => Promise<T>): Promise<T> {
  const { stacks, kubeconfig, context, address, httpsPort, signal } = where;
  const isForeign = kubeconfig !== undefined;
  const patience = isForeign ? 1 : await slownessOf(stacks, root);
  const { place, config, plan } = isForeign
    ? { place: { kubeconfig, context }, config: undefined, plan: undefined }
    : await placeOfStacks(stacks);
  // For a lab cluster any server will do; the contexts of another kubeconfig are different clusters.
  const api = isForeign ? undefined : await reach(place, patience);
  try {
    const run = kubectlOn({ ...place, context: api?.context ?? context }, patience, signal);
    return await work({
      kubectl: run,
      addresses: async (entry) => {
        if (address !== undefined)
          return [
            entry === "web" ? address : address.replace(/:\d+$/, "") + (httpsPort ? `:${httpsPort}` : ""),
          ];
        if (api && config) return addressesOf(Promise.resolve(api), config, plan, entry);
        if (plan) return entry === "web" ? plan.ingress : plan.ingress.map((one) => httpsAddress(one, plan));
        return foreignAddresses(run);
      },
      ...outside(patience),
      verify: isForeign ? undefined : () => verify(stacks),
    });
  } finally {
    api?.close();
  }
}

const reach = (place: Place, patience: number) =>
  reachPlace(place, patience).catch((cause: Error) => {
    throw new LabError(`The cluster could not be queried: ${cause.message}.`, { cause });
  });

/** The cluster of the stacks, which must all be on one. */
async function placeOfStacks(stacks: readonly string[]): Promise<{
  place: Place;
  config: OnCluster | undefined;
  plan: ClusterPlan | undefined;
}> {
  const found = await Promise.all(
    stacks.map(async (stack) => {
      if (!isOnCluster(programOf(stack)))
        return {
          place: { kubeconfig: kubeconfigOf(stack), context: undefined },
          config: undefined,
          plan: await readClusterPlan(stack, root),
        };
      const config = await readOnCluster(stack, root);
      return { place: placeOf(config), config, plan: await planOf(config) };
    }),
  );
  const [first, ...others] = found;
  const key = ({ place }: (typeof found)[number]) => `${place.kubeconfig} ${place.context}`;
  if (first === undefined || others.some((other) => key(other) !== key(first)))
    throw refusal(`The stacks ${stacks.join(", ")} are on different clusters. Name stacks on one cluster.`);
  return found.find(({ config }) => config) ?? first;
}

/** Requests from this computer to the Ingress controller. Does not check whether a certificate is trusted. */
const outside = (patience: number): Pick<Cluster, "send" | "certificate"> => ({
  send: ({ address, host, path, https }) =>
    get(`${https ? "https" : "http"}://${address}${path}`, {
      headers: { accept: "application/json", ...(host ? { host } : {}) },
      timeout: 3000 * patience,
      ...(https
        ? { agent: new Agent({ rejectUnauthorized: false, ...(host ? { servername: host } : {}) }) }
        : {}),
    }),
  certificate: (address, host) =>
    new Promise((resolve, reject) => {
      const [name = "", port = "443"] = address.split(":");
      const socket = connectTls({
        host: name,
        port: Number(port),
        servername: host,
        rejectUnauthorized: false,
      });
      socket.setTimeout(3000 * patience, () => socket.destroy(new Error("no answer")));
      socket.on("error", reject);
      socket.on("secureConnect", () => {
        const certificate = socket.getPeerX509Certificate();
        socket.destroy();
        if (certificate === undefined) return reject(new Error("no certificate"));
        resolve({
          from: new Date(certificate.validFrom),
          until: new Date(certificate.validTo),
          fault: certificate.checkHost(host)
            ? undefined
            : `it is for ${certificate.subject.split("\n").at(-1)}`,
        });
      });
    }),
});

/** The Ingress controller's addresses on an unknown cluster: from its Ingresses, or its nodes. */
async function foreignAddresses(run: Kubectl): Promise<readonly IngressAddress[]> {
  const list = async (...what: string[]): Promise<unknown> =>
    JSON.parse(await run(["get", ...what, "--output=json"]));
  const ingresses = await list("ingresses", "--all-namespaces");
  const at = "items[].status.loadBalancer.ingress[]";
  const addresses = [...valuesAt(ingresses, `${at}.ip`), ...valuesAt(ingresses, `${at}.hostname`)];
  const found = addresses.length > 0 ? addresses : valuesAt(await list("nodes"), internal);
  return [...new Set(found.map(String))];
}

const internal = "items[].status.addresses[type=InternalIP].address";
