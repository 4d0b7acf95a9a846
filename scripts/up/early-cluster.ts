import { setTimeout } from "node:timers/promises";
import { execa } from "execa";
import { z } from "zod";
import type { HttpAnswer } from "../../stacks/lib/http.ts";
import { accessOf } from "../../stacks/lib/kube-access.ts";
import { requests } from "../../stacks/lib/kubernetes.ts";
import { root } from "../../stacks/lib/paths.ts";
import { servedAt } from "../../stacks/model/cluster-plan.ts";
import { agentsOf, serverArgsOf, serversOf } from "../../stacks/model/k3d-file.ts";
import { K3sFlags } from "../../stacks/model/k3s-flags.ts";
import { chooseContext, rewriteKubeconfig } from "../../stacks/model/kubeconfig.ts";
import { sshAlias, sshTo } from "../../stacks/model/ssh-config.ts";
import type { Stacks } from "../lab.ts";
import { unlessStopped } from "../report.ts";
import { untilKnown } from "./early-images.ts";

/** Milliseconds between two looks at what is not there yet; on a slow machine more, or looking would take its processor. */
const interval = 250;

/** The Jobs by which K3s installs Traefik; the second one waits for what the first one brings. */
const jobs = ["helm-install-traefik-crd", "helm-install-traefik"] as const;

/** Seconds after which a pod that has not ended is given up: its Job then starts another one, as if this one had never been. */
const within = 1800;

/**
 * The number of the first node's network among those of the pods. Kubernetes gives them out from 0 on, so that it never
 * gives a second node one of these, even if it does not know yet that it is taken.
 */
const firstNetwork = 100;

/**
 * Milliseconds after which a node that has registered gets its network: kubelet says at once whether it is Ready, but not
 * for the next ten seconds if it was asked in its first one.
 */
const settled = 2_000;

const object = z.looseObject({});
const jobSchema = z.object({
  metadata: z.object({ name: z.string(), uid: z.string(), deletionTimestamp: z.string().optional() }),
  spec: z.object({
    template: z.object({
      metadata: object,
      spec: object.extend({
        containers: z.array(object.extend({ env: z.array(object).default([]) })),
      }),
    }),
  }),
  /** Set by the controller that creates the Job's pods. */
  status: z.object({ startTime: z.string().optional() }).default({}),
});
type Job = z.output<typeof jobSchema>;

const texts = z.record(z.string(), z.string()).default({});
const nodesSchema = z.object({
  items: z.array(
    z.object({
      metadata: z.object({ name: z.string(), labels: texts, annotations: texts }),
      spec: z.object({
        podCIDR: z.string().optional(),
        taints: z.array(z.object({ effect: z.string() })).default([]),
      }),
    }),
  ),
});

/** What K3s tells flannel on a node: the network of all pods. */
const flannelSchema = z.object({
  Network: z.string().regex(/^\d+\.\d+\.0\.0\/16$/),
  EnableIPv6: z.literal(false),
});

/**
 * A Job's first pod, which the Job takes for its own. Unlike those that it would create itself this one needs no network
 * of pods: it runs on a server and talks to the API there, as K3s has it for charts that bring the network.
 * @param api the API server as the node reaches it.
 */
const firstPod = ({ metadata, spec: { template } }: Job, node: string, api: URL) => ({
  apiVersion: "v1",
  kind: "Pod",
  metadata: {
    ...template.metadata,
    name: `${metadata.name}-early`,
    // As the Job controller does: it counts what became of its pods by this.
    finalizers: ["batch.kubernetes.io/job-tracking"],
    ownerReferences: [
      {
        ...{ apiVersion: "batch/v1", kind: "Job", name: metadata.name, uid: metadata.uid },
        ...{ controller: true, blockOwnerDeletion: true },
      },
    ],
  },
  spec: {
    ...template.spec,
    ...{ nodeName: node, hostNetwork: true, activeDeadlineSeconds: within },
    containers: template.spec.containers.map((container) => ({
      ...container,
      env: [
        ...container.env,
        { name: "KUBERNETES_SERVICE_HOST", value: api.hostname },
        { name: "KUBERNETES_SERVICE_PORT", value: api.port },
        { name: "BOOTSTRAP", value: "true" },
      ],
    })),
  },
});

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
 */
export async function startEarly(
  found: Stacks,
  cluster: string,
  signal: AbortSignal,
  made: NewCluster | undefined = newCluster(found, cluster, signal),
): Promise<void> {
  if (made === undefined) return;
  await unlessStopped(start(made, signal), signal).catch(() => {});
}

async function start({ read, apiServer, nodes, serverArgs }: NewCluster, signal: AbortSignal): Promise<void> {
  const kubeconfig = await untilKnown(() => read("kubeconfig"), signal);
  const inside = new URL(chooseContext(kubeconfig, "K3s's kubeconfig").cluster.server);
  const outside = rewriteKubeconfig(kubeconfig, [apiServer], "lab");
  const access = await accessOf(chooseContext(outside, "the lab's kubeconfig"));
  const { send, close } = requests(access);
  const api = { send, inside, ca: access.ca };
  const hasTraefik = !new K3sFlags(serverArgs).disabled().has("traefik");
  /** Tries until it succeeds. */
  const repeat = async (work: () => Promise<boolean>): Promise<void> => {
    for (;;) {
      const began = performance.now();
      if (await work().catch(() => false)) return;
      await setTimeout(Math.max(interval, 5 * (performance.now() - began)), undefined, { signal });
    }
  };
  try {
    await Promise.all([
      untilKnown(() => read("flannel"), signal).then((flannel) => {
        const networks = networksOf(flannel, nodes);
        const seen = new Map<string, number>();
        return repeat(() => giveNetworks(api, networks, seen));
      }),
      ...(hasTraefik ? jobs : []).map((job) => repeat(() => startJob(api, job))),
    ]);
  } finally {
    close();
  }
}

interface Api {
  readonly send: ReturnType<typeof requests>["send"];
  readonly inside: URL;
  readonly ca: string | undefined;
}

const parsed = <T>({ body }: HttpAnswer, schema: z.ZodType<T>): T => schema.parse(JSON.parse(body));
const here = "/api/v1/namespaces/kube-system";
const allNodes = "/api/v1/nodes";

/** The network of each node, by its name in Kubernetes; none where K3s runs with others than its usual ones. */
function networksOf(flannel: string, nodes: readonly string[]): ReadonlyMap<string, string> {
  try {
    const [prefix] = flannelSchema.parse(JSON.parse(flannel)).Network.split(".0.0/");
    return new Map(
      nodes.map((name, index) => [name.toLowerCase(), `${prefix}.${firstNetwork + index}.0/24`]),
    );
  } catch {
    return new Map();
  }
}

/** K3s's flags on a node, as it writes them down once the node has registered. */
const flagsOf = ({ metadata }: z.output<typeof nodesSchema>["items"][number]): string | undefined =>
  metadata.annotations["k3s.io/node-args"];

/** @param seen when each node was first seen. @returns whether each of the nodes has its network. */
async function giveNetworks(
  { send }: Api,
  networks: ReadonlyMap<string, string>,
  seen: Map<string, number>,
): Promise<boolean> {
  if (networks.size === 0) return true;
  const { items } = parsed(await send(allNodes), nodesSchema);
  const flags = items.map(flagsOf).find((args) => args?.startsWith('["server"'));
  if (flags === undefined) return false;
  // The user may have networks cut in another size, or given by something else.
  if (flags.includes("--kube-controller-")) return true;
  const own = items.filter(({ metadata }) => networks.has(metadata.name));
  // A cluster that is here from before may have given the network to another node; then the controller gives one.
  const taken = new Set(items.map(({ spec }) => spec.podCIDR));
  const without = own
    .filter(({ metadata, spec }) => spec.podCIDR === undefined && !taken.has(networks.get(metadata.name)))
    .map(({ metadata }) => metadata.name);
  for (const name of without) {
    const since = seen.get(name) ?? Date.now();
    seen.set(name, since);
    if (Date.now() - since < settled) continue;
    const podCIDR = networks.get(name);
    await send(`${allNodes}/${name}`, {
      body: JSON.stringify({ spec: { podCIDR, podCIDRs: [podCIDR] } }),
      contentType: "application/merge-patch+json",
    });
  }
  return own.length === networks.size && without.length === 0;
}

/** @returns whether there is nothing left to do for a Job. */
async function startJob({ send, inside, ca }: Api, name: string): Promise<boolean> {
  const job = parsed(await send(`/apis/batch/v1/namespaces/kube-system/jobs/${name}`), jobSchema);
  if (job.status.startTime !== undefined) return true;
  // Other values replace the Job; the pod of one that goes would be ended in the middle of its work.
  if (job.metadata.deletionTimestamp !== undefined) return false;
  const { items } = parsed(await send(allNodes), nodesSchema);
  const node = items.find(
    ({ metadata: { labels }, spec: { taints } }) =>
      "node-role.kubernetes.io/control-plane" in labels &&
      // Such a taint drives out pods that run.
      taints.every(({ effect }) => effect !== "NoExecute"),
  );
  if (node === undefined) return false;
  // Every pod mounts it, and its controller too does not look yet; it puts right what is not as it would have it.
  const authority = { metadata: { name: "kube-root-ca.crt" }, data: { "ca.crt": ca } };
  await send(`${here}/configmaps`, { body: JSON.stringify(authority) });
  const pod = firstPod(job, node.metadata.name, inside);
  const { status } = await send(`${here}/pods`, { body: JSON.stringify(pod) });
  return status === 201 || status === 409;
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
