import { isIPv4 } from "node:net";
import { join } from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import { readKubeconfig } from "../../stacks/lib/kube-access.ts";
import { connect, type KubernetesApi, type Reached, reach } from "../../stacks/lib/kubernetes.ts";
import { root, stackDir } from "../../stacks/lib/paths.ts";
import type { Progress } from "../../stacks/lib/progress.ts";
import { type ClusterPlan, readClusterPlan } from "../../stacks/model/cluster-plan.ts";
import {
  type AppsConfig,
  managedIngress,
  managedTraefik,
  programOf,
  readStackFile,
} from "../../stacks/model/config.ts";
import { kubeconfigFile } from "../../stacks/model/kubeconfig.ts";
import { sshAlias } from "../../stacks/model/ssh-config.ts";
import { checkApps } from "./apps.ts";
import { type Answer, ask, type Check } from "./check.ts";
import { checkCluster } from "./cluster.ts";
import { namespacesOf, probeFromPods } from "./from-pods.ts";
import { askIngress, type Get, getWithin, type IngressAddress } from "./ingress.ts";
import { type AskPod, podAsker } from "./inside.ts";
import { type MachineFacts, readMachine } from "./machines.ts";
import { slownessOf } from "./slowness.ts";

export type { Check } from "./check.ts";

export interface VerifyOptions {
  /** Seconds in which a check that fails is made again, until all pass. Default: 0, each is made once. */
  readonly wait?: number;
  /** Hears what is still missing, whenever that has changed. */
  readonly progress?: Progress;
  /** The folder of the stack files. Default: the checkout. */
  readonly directory?: string;
  /** How the lab is reached. Default: the real one. */
  readonly world?: World;
}

/** Everything that `verify` asks; tests put their own in its place. */
export interface World {
  /** Without a context it is a cluster of the lab's, any of whose servers will do. */
  readonly connect: (kubeconfig: string, context?: string) => Promise<Reached>;
  readonly machine: (alias: string) => Promise<MachineFacts>;
  readonly http: Get;
  readonly podAsker: (kubeconfig: string, context: string | undefined, namespace: string) => AskPod;
}

/** @param patience how many times longer than usual an answer may take. */
const realWorld = (patience: number): World => ({
  connect: async (kubeconfig, context) =>
    context === undefined
      ? reach(kubeconfig, 5000 * patience)
      : { context, ...connect(await readKubeconfig(kubeconfig, context), 5000 * patience) },
  machine: (alias) => readMachine(alias, 8000 * patience),
  http: getWithin(3000 * patience),
  podAsker: (kubeconfig, context, namespace) => podAsker(kubeconfig, context, namespace, patience),
});

/** Milliseconds between two rounds of `wait`. */
const interval = 500;

/**
 * Asks the real thing whether it is what the stack files say: machines over ssh, the API server, HTTP from outside,
 * names and pods from inside. Changes nothing. Everything is asked side by side and every question has its deadline,
 * so that one round ends within 15 seconds whatever is broken; of machines that are slower than usual that many times.
 *
 * @throws LabError (exit code 2) when a stack file is missing or wrong; a lab that is down is a failed check instead.
 */
export async function verify(stacks: readonly string[], options: VerifyOptions = {}): Promise<Check[]> {
  const { wait = 0, progress, directory = root } = options;
  const world = options.world ?? realWorld(await slownessOf(stacks, directory));
  const plans = await Promise.all(stacks.map((stack) => readPlan(stack, directory)));
  const end = Date.now() + wait * 1000;
  let told = "";
  for (;;) {
    const round = new Round(world);
    const checks = (await Promise.all(plans.map((plan) => plan(round)))).flat();
    await round.end();
    const failed = checks.filter(({ ok }) => !ok);
    const left = end - Date.now();
    if (failed.length === 0 || left <= 0) return checks;
    const missing = describeMissing(failed);
    if (missing !== told) progress?.(`waiting, ${Math.ceil(left / 1000)} s at most: ${missing}`);
    told = missing;
    await pause(Math.min(interval, left));
  }
}

/** What `wait` waits for, in one line. */
function describeMissing(failed: readonly Check[]): string {
  const [first] = failed;
  const more = failed.length > 1 ? ` and ${failed.length - 1} more` : "";
  return `${first?.title}: ${first?.actual}${more}`;
}

/** One look at the lab. Stacks on one cluster share what was asked of it. */
class Round {
  readonly world: World;
  readonly #apis = new Map<string, Promise<Answer<Reached>>>();

  constructor(world: World) {
    this.world = world;
  }

  api(kubeconfig: string, context?: string): Promise<Answer<Reached>> {
    const key = `${kubeconfig} ${context ?? ""}`;
    const api = this.#apis.get(key) ?? ask(() => this.world.connect(kubeconfig, context));
    this.#apis.set(key, api);
    return api;
  }

  async end(): Promise<void> {
    for (const api of await Promise.all(this.#apis.values())) if (api.ok) api.value.close();
  }
}

type Plan = (round: Round) => Promise<Check[]>;

const kubeconfigOf = (stack: string): string => join(stackDir(stack), "kubeconfig");

async function readPlan(stack: string, directory: string): Promise<Plan> {
  if (programOf(stack) !== "apps") {
    const plan = await readClusterPlan(stack, directory);
    return (round) => verifyCluster(stack, plan, round);
  }
  const config = await readStackFile(stack as "apps", directory);
  const { cluster } = config;
  if (!("stack" in cluster))
    return (round) =>
      verifyApps(stack, config, round, kubeconfigFile(cluster.kubeconfig, directory), cluster.context);
  const { ingress } = await readClusterPlan(cluster.stack, directory);
  const known = config.ingress === managedIngress ? undefined : ingress;
  return (round) => verifyApps(stack, config, round, kubeconfigOf(cluster.stack), undefined, known);
}

async function verifyCluster(stack: string, plan: ClusterPlan, round: Round): Promise<Check[]> {
  const api = await round.api(kubeconfigOf(stack));
  const fromApi = <T>(question: (api: KubernetesApi) => Promise<T>): Promise<Answer<T>> =>
    api.ok ? ask(() => question(api.value)) : Promise.resolve(api);
  const machines = plan.nodes.flatMap(({ machine }) => machine ?? []);
  const [facts, version, nodes, pods, deployments] = await Promise.all([
    Promise.all(
      machines.map(
        async ({ name }) => [name, await ask(() => round.world.machine(sshAlias(stack, name)))] as const,
      ),
    ),
    fromApi((it) => it.version()),
    fromApi((it) => it.nodes()),
    fromApi((it) => it.pods("kube-system")),
    fromApi((it) => it.deployments("kube-system")),
  ]);
  return checkCluster(stack, plan, {
    machines: Object.fromEntries(facts),
    version,
    nodes,
    pods,
    deployments,
  });
}

async function verifyApps(
  stack: string,
  config: AppsConfig,
  round: Round,
  kubeconfig: string,
  context: string | undefined,
  known?: readonly IngressAddress[],
): Promise<Check[]> {
  const api = await round.api(kubeconfig, context);
  const fromApi = <T>(question: (api: KubernetesApi) => Promise<T>): Promise<Answer<T>> =>
    api.ok ? ask(() => question(api.value)) : Promise.resolve(api);
  const each = async <T>(names: readonly string[], look: (namespace: string) => Promise<T>) =>
    new Map(await Promise.all(names.map(async (name) => [name, await look(name)] as const)));
  const askPod = (namespace: string) =>
    round.world.podAsker(kubeconfig, api.ok ? api.value.context : context, namespace);
  const outside = async () => {
    const addresses: Answer<readonly IngressAddress[]> = known
      ? { ok: true, value: known }
      : await fromApi((it) => ingressAddresses(it, config));
    const list = addresses.ok ? addresses.value : [];
    return { addresses, ingress: await askIngress(config.apps, list, round.world.http) };
  };
  const namespaces = namespacesOf(config.apps);
  const limited = config.namespaces.filter(({ quota }) => quota !== undefined).map(({ name }) => name);
  const [found, deployments, pods, endpointSlices, quotas, inside] = await Promise.all([
    outside(),
    each(namespaces, (namespace) => fromApi((it) => it.deployments(namespace))),
    each(namespaces, (namespace) => fromApi((it) => it.pods(namespace))),
    each(namespaces, (namespace) => fromApi((it) => it.endpointSlices(namespace))),
    each(limited, (namespace) => fromApi((it) => it.resourceQuotas(namespace))),
    fromApi((it) => probeFromPods(config, it, askPod)),
  ]);
  return checkApps(stack, config, { ...found, deployments, pods, endpointSlices, quotas, inside });
}

/** Where the cluster itself says that its Ingress controller listens. */
async function ingressAddresses(api: KubernetesApi, config: AppsConfig): Promise<IngressAddress[]> {
  const namespaces = namespacesOf(config.apps);
  const ingresses = (await Promise.all(namespaces.map((namespace) => api.ingresses(namespace)))).flat();
  const all = ingresses.flatMap(({ status }) =>
    status.loadBalancer.ingress.flatMap(({ ip, hostname }) => ip ?? hostname ?? []),
  );
  if (all.length > 0) return [...new Set(all)];
  if (config.ingress === managedIngress) return nodePortAddresses(api);
  throw new Error(`no Ingress in the namespace ${namespaces.join(", ")} has an address`);
}

/** Where the lab's own Traefik listens on a cluster without a load balancer: at its Service's port of every node. */
async function nodePortAddresses(api: KubernetesApi): Promise<IngressAddress[]> {
  const { namespace } = managedTraefik;
  const [services, nodes] = await Promise.all([api.services(namespace), api.nodes()]);
  const service = services.find(({ metadata }) => metadata.name === "traefik");
  const port = service?.spec.ports.find(({ name }) => name === "web")?.nodePort;
  if (port === undefined) throw new Error(`the Service ${namespace}/traefik has no node port`);
  const internal = nodes.flatMap(({ status }) =>
    status.addresses.filter(({ type }) => type === "InternalIP"),
  );
  return internal.filter(({ address }) => isIPv4(address)).map(({ address }) => `${address}:${port}`);
}
