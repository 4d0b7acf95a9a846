import { setTimeout } from "node:timers/promises";
import { execa } from "execa";
import { accessOf } from "../../stacks/lib/kube-access.ts";
import { requests } from "../../stacks/lib/kubernetes.ts";
import { root } from "../../stacks/lib/paths.ts";
import { servedAt } from "../../stacks/model/cluster-plan.ts";
import { agentsOf, serverArgsOf, serversOf } from "../../stacks/model/k3d-file.ts";
import { K3sFlags } from "../../stacks/model/k3s-flags.ts";
import { chooseContext, contextName, rewriteKubeconfig } from "../../stacks/model/kubeconfig.ts";
import { sshAlias, sshTo } from "../../stacks/model/ssh-config.ts";
import type { Stacks } from "../lab.ts";
import { unlessStopped } from "../report.ts";
import { untilKnown } from "./early-images.ts";
import { jobWork, traefikJobs } from "./early-jobs.ts";
import { type EarlyApi, type EarlyWork, networkWork, nodesOf } from "./early-nodes.ts";

/** Milliseconds between two looks at what is not there yet; on a slow machine more, or looking would take its processor. */
const interval = 250;

/** A cluster that is being created. */
export interface NewCluster {
  /** Reads what K3s wrote on its first server; undefined where it is not there yet. */
  readonly read: (what: "kubeconfig" | "flannel") => Promise<string | undefined>;
  /** The API server's address as this computer reaches it. */
  readonly apiServer: string;
  /** The names of its nodes. */
  readonly nodes: readonly string[];
  /** K3s's flags on its server. */
  readonly serverArgs: readonly string[];
}

/**
 * Does at once what Kubernetes' controllers do only after they have waited ten seconds for nodes: gives each node its network
 * of pods, at which it becomes Ready, and starts the pods that install Traefik. It only saves time
 * (docs/decisions/048-early-apps.md): what is not done here the controllers do, later.
 * @param onAnswer receives the kubeconfig, as the cluster's stack will export it, once the API server answers.
 */
export async function startEarly(
  found: Stacks,
  cluster: string,
  signal: AbortSignal,
  onAnswer: (kubeconfig: string) => void,
  made: NewCluster | undefined = newCluster(found, cluster, signal),
): Promise<void> {
  if (made === undefined) return;
  await unlessStopped(start(made, contextName(cluster), onAnswer, signal), signal).catch(() => {});
}

async function start(
  { read, apiServer, nodes, serverArgs }: NewCluster,
  name: string,
  onAnswer: (kubeconfig: string) => void,
  signal: AbortSignal,
): Promise<void> {
  const kubeconfig = await untilKnown(() => read("kubeconfig"), signal);
  const inside = new URL(chooseContext(kubeconfig, "K3s's kubeconfig").cluster.server);
  const outside = rewriteKubeconfig(kubeconfig, [apiServer], name);
  const access = await accessOf(chooseContext(outside, "the lab's kubeconfig"));
  const { send, close } = requests(access);
  const hasTraefik = !new K3sFlags(serverArgs).disabled().has("traefik");
  let networks: EarlyWork | undefined;
  void untilKnown(() => read("flannel"), signal).then(
    (flannel) => {
      networks = networkWork(flannel, nodes);
    },
    () => {},
  );
  const works: EarlyWork[] = [
    async ({ send }) => {
      if (!(await hasNamespaces(send))) return false;
      onAnswer(outside);
      return true;
    },
    async (...now) => (await networks?.(...now)) === true,
    ...(hasTraefik ? traefikJobs : []).map(jobWork),
  ];
  try {
    await untilDone({ send, inside, ca: access.ca }, works, signal);
  } finally {
    close();
  }
}

/** Whether the API server has made the namespaces that every cluster has: one identifies it, the other is for apps. */
async function hasNamespaces(send: EarlyApi["send"]): Promise<boolean> {
  const answers = ["kube-system", "default"].map((name) => send(`/api/v1/namespaces/${name}`));
  return (await Promise.all(answers)).every(({ status }) => status === 200);
}

/** Tries each work until it is done. */
async function untilDone(api: EarlyApi, works: readonly EarlyWork[], signal: AbortSignal): Promise<void> {
  for (let left = works; left.length > 0; ) {
    const began = performance.now();
    const nodes = await nodesOf(api).catch(() => undefined);
    if (nodes !== undefined) {
      const done = await Promise.all(left.map((work) => work(api, nodes).catch(() => false)));
      left = left.filter((_, index) => !done[index]);
    }
    const pause = Math.max(interval, 5 * (performance.now() - began));
    if (left.length > 0) await setTimeout(pause, undefined, { signal });
  }
}

const flannelFile = "/var/lib/rancher/k3s/agent/etc/flannel/net-conf.json";

/**
 * Nothing is gained where several servers join one after the other. Nor must a Traefik wait there, or behind a load balancer,
 * for each node that joins: it would start before kube-proxy, and try for 30 s to connect to an API server it cannot reach.
 */
function newCluster(
  { machines, k3d }: Stacks,
  cluster: string,
  cancelSignal: AbortSignal,
): NewCluster | undefined {
  const output = async (file: string, args: readonly string[]) => {
    const options = { reject: false, stdin: "ignore", timeout: 20_000, cancelSignal } as const;
    const { failed, stdout } = await execa(file, args, options);
    return failed || stdout === "" ? undefined : stdout;
  };
  const config = machines.find(([stack]) => stack === cluster)?.[1];
  const [server, ...others] = config?.machines.filter(({ role }) => role === "server") ?? [];
  if (config && server && others.length === 0 && !config.loadBalancer) {
    const files = { kubeconfig: "/etc/rancher/k3s/k3s.yaml", flannel: flannelFile };
    const to = sshTo(root, sshAlias(cluster, server.name));
    return {
      read: (what) => output("ssh", [...to, "sudo", "cat", files[what]]),
      apiServer: `https://${servedAt(server)}:6443`,
      nodes: config.machines.map(({ name }) => name),
      serverArgs: config.k3s.serverArgs,
    };
  }
  const file = k3d.find(([stack]) => stack === cluster)?.[1];
  const [container, ...more] = file ? serversOf(file) : [];
  if (!file || !container || more.length > 0) return undefined;
  const files = { kubeconfig: "/output/kubeconfig.yaml", flannel: flannelFile };
  return {
    read: (what) => output("docker", ["exec", container, "cat", files[what]]),
    apiServer: `https://${file.kubeAPI.hostIP}:${file.kubeAPI.hostPort}`,
    nodes: [container, ...agentsOf(file).map(({ name }) => name)],
    serverArgs: serverArgsOf(file),
  };
}
