import type { Reached } from "../../stacks/lib/kubernetes.ts";
import { root } from "../../stacks/lib/paths.ts";
import type { Progress } from "../../stacks/lib/progress.ts";
import { planOf, readClusterPlan } from "../../stacks/model/cluster-plan.ts";
import { isOnCluster, programOf, readOnCluster } from "../../stacks/model/config.ts";
import { sshAlias } from "../../stacks/model/ssh-config.ts";
import { authorityOf } from "../../stacks/observe/certificates.ts";
import { kubeconfigOf, placeOf, reachPlace } from "../../stacks/observe/place.ts";
import { checkApps } from "./apps.ts";
import { askOnce, type Check } from "./check.ts";
import { checkCluster } from "./cluster.ts";
import { probeFromPods } from "./from-pods.ts";
import { addressesOf, type Get, getWithin } from "./ingress.ts";
import { type AskPod, type ExecInPod, execInPod, podAsker } from "./inside.ts";
import { type BalancerSources, realBalancer } from "./load-balancer.ts";
import { type MachineFacts, readMachine } from "./machines.ts";
import { readContainer, type SecretRecords } from "./secrets.ts";
import { type AskServer, type CompareServers, serverAsker, serverComparer } from "./servers.ts";
import { slownessOf } from "./slowness.ts";
import { untilAllPass } from "./wait.ts";

export type { Check } from "./check.ts";

interface VerifyOptions {
  /** Seconds for which to repeat the checks until all pass. Default: 0, each runs once. */
  readonly wait?: number;
  /** Receives what is still missing, whenever that changes. */
  readonly progress?: Progress;
  /** The folder of the stack files. Default: the checkout. */
  readonly directory?: string;
  /** How the lab is reached. Default: the real one. */
  readonly world?: World;
}

/** Everything that `verify` queries; tests pass their own. */
export interface World extends BalancerSources {
  /** Without a context it is a lab cluster, of which any server will do. */
  readonly connect: (kubeconfig: string, context?: string) => Promise<Reached>;
  readonly machine: (alias: string) => Promise<MachineFacts>;
  /** The records of Secrets in a k3d server's datastore. */
  readonly container: (name: string) => Promise<SecretRecords>;
  /** Queries each server of a lab cluster individually. */
  readonly serverAsker: (kubeconfig: string) => AskServer;
  readonly http: Get;
  /** Over HTTPS, from servers that have a certificate for the host by this CA. */
  readonly https: (authority: string) => Get;
  readonly podAsker: (kubeconfig: string, context: string | undefined, namespace: string) => AskPod;
  readonly exec: (kubeconfig: string, context: string | undefined, namespace: string) => ExecInPod;
}

/** @param patience a factor for all timeouts. */
const realWorld = (patience: number): World => ({
  ...realBalancer(8000 * patience),
  connect: (kubeconfig, context) => reachPlace({ kubeconfig, context }, patience),
  machine: (alias) => readMachine(alias, 8000 * patience),
  container: (name) => readContainer(name, 8000 * patience),
  serverAsker: (kubeconfig) => serverAsker(kubeconfig, 8000 * patience),
  http: getWithin(3000 * patience),
  https: (authority) => getWithin(3000 * patience, authority),
  podAsker: (kubeconfig, context, namespace) => podAsker(kubeconfig, context, namespace, patience),
  exec: (kubeconfig, context, namespace) => execInPod(kubeconfig, context, namespace, patience),
});

/**
 * Checks the actual state against the stack files: machines over ssh, the API server, HTTP from outside,
 * names and pods from inside. Changes nothing. All queries run in parallel and have timeouts,
 * so that one round ends within 15 seconds whatever is broken; the limit is multiplied on slow machines.
 *
 * @throws LabError (exit code 2) if a stack file is missing or invalid; a lab that is down is a failed check instead.
 */
export async function verify(stacks: readonly string[], options: VerifyOptions = {}): Promise<Check[]> {
  const { wait = 0, progress, directory = root } = options;
  const world = options.world ?? realWorld(await slownessOf(stacks, directory));
  const plans = await Promise.all(stacks.map((stack) => readPlan(stack, directory)));
  return [...(await untilAllPass(() => runRound(plans, world), wait, progress))];
}

/** Checks one stack. */
type Plan = (world: World) => Promise<Check[]>;

/** Runs every check once. Stacks on one cluster share its answers. */
async function runRound(plans: readonly Plan[], world: World): Promise<Check[]> {
  const apis = new Map<string, Promise<Reached>>();
  const connectOnce: World["connect"] = (kubeconfig, context) => {
    const key = `${kubeconfig} ${context ?? ""}`;
    const api = apis.get(key) ?? askOnce(world.connect(kubeconfig, context));
    apis.set(key, api);
    return api;
  };
  const checks = await Promise.all(plans.map((plan) => plan({ ...world, connect: connectOnce })));
  for (const api of await Promise.allSettled(apis.values()))
    if (api.status === "fulfilled") api.value.close();
  return checks.flat();
}

async function readPlan(stack: string, directory: string): Promise<Plan> {
  if (!isOnCluster(programOf(stack))) {
    const plan = await readClusterPlan(stack, directory);
    let compareServers: CompareServers | undefined;
    return (world) => {
      compareServers ??= serverComparer(world.serverAsker(kubeconfigOf(stack)));
      return checkCluster(stack, plan, {
        api: world.connect(kubeconfigOf(stack)),
        machine: (name) => world.machine(sshAlias(stack, name)),
        compareServers,
        ...{ container: world.container, haproxy: world.haproxy, connects: world.connects },
      });
    };
  }
  const config = await readOnCluster(stack, directory);
  const { kubeconfig, context } = placeOf(config, directory);
  const plan = await planOf(config, directory);
  return (world) => {
    const api = world.connect(kubeconfig, context);
    const inside = api.then((it) =>
      probeFromPods(config, it, (namespace) => world.podAsker(kubeconfig, it.context, namespace)),
    );
    const askPod = api.then((it) => world.podAsker(kubeconfig, it.context, config.namespace));
    const exec = api.then((it) => world.exec(kubeconfig, it.context, config.namespace));
    return checkApps(stack, config, {
      api,
      addresses: askOnce(addressesOf(api, config, plan)),
      http: world.http,
      https: config.apps.some(({ tls }) => tls)
        ? {
            addresses: askOnce(addressesOf(api, config, plan, "websecure")),
            send: (app) => async (address, host, path) =>
              world.https(await authorityOf(app, directory))(address, host, path),
            redirects: plan?.httpsPort !== undefined,
          }
        : undefined,
      inside: askOnce(inside),
      exec: askOnce(exec),
      askPod: askOnce(askPod),
    });
  };
}
