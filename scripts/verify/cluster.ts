import {
  isReady,
  type KubernetesApi,
  type Node,
  type Pod,
  taintInWords,
} from "../../stacks/lib/kubernetes.ts";
import type { ClusterPlan, PlannedNode } from "../../stacks/model/cluster-plan.ts";
import type { Machine } from "../../stacks/model/config.ts";
import { hasServiceLb, marksIn } from "../../stacks/model/k3s-cluster.ts";
import { K3sFlags } from "../../stacks/model/k3s-flags.ts";
import { sshAlias } from "../../stacks/model/ssh-config.ts";
import { askOnce, type Check, type CheckSpec, runChecks } from "./check.ts";
import { whyLate } from "./late.ts";
import { type BalancerSources, checkLoadBalancer } from "./load-balancer.ts";
import type { MachineFacts } from "./machines.ts";
import { checkSecrets, type SecretRecords } from "./secrets.ts";
import { type CompareServers, checkServers } from "./servers.ts";

/** Sources for the checks of a cluster. */
interface ClusterSources extends BalancerSources {
  readonly api: Promise<KubernetesApi>;
  /** Queries a machine by its name. */
  readonly machine: (name: string) => Promise<MachineFacts>;
  readonly compareServers: CompareServers;
  /** Counts the records of Secrets in the datastore of a k3d container. */
  readonly container: (name: string) => Promise<SecretRecords>;
}

/** K3s's own add-ons that are Deployments, by their name for `--disable`. */
const addOns = {
  coredns: "coredns",
  traefik: "traefik",
  "local-storage": "local-path-provisioner",
  "metrics-server": "metrics-server",
} as const;

/** Checks a cluster against its stack file. @param stack begins each check's id. */
export function checkCluster(
  stack: string,
  { nodes, network, serverArgs, version, loadBalancer }: ClusterPlan,
  { api, machine: ask, compareServers, container, ...balancer }: ClusterSources,
): Promise<Check[]> {
  const answers = new Map(nodes.map(({ name, machine }) => [name, machine && askOnce(ask(name))]));
  const flags = new K3sFlags(serverArgs);
  const backend = flags.value("--flannel-backend") ?? "vxlan";
  const names = inOrder(nodes.map(({ name }) => name));
  const servers = nodes.filter(({ role }) => role === "server");
  const whole: CheckSpec[] = [
    {
      id: "nodes",
      title: "the nodes are those of the stack file",
      expected: names,
      actual: async () => inOrder((await (await api).nodes()).map(({ metadata }) => metadata.name)),
      hint: "Run `scripts/lab up`; remove a node that should not exist with `kubectl delete node NAME`.",
    },
    {
      id: "api-version",
      title: "the API server's version",
      expected: version,
      actual: async () => (await api).version(),
      hint: "Run `scripts/lab up`: it installs the version that the stack file asks for.",
    },
    {
      id: "system-pods",
      title: "every pod in kube-system is ready",
      expected: "all ready",
      actual: async () => describeSystemPods(await api),
      hint: "See why: `kubectl --namespace kube-system describe pod NAME` and `kubectl --namespace kube-system logs NAME`.",
    },
    ...checkServers(servers, compareServers),
    ...checkSecrets(servers, flags.isOn("--secrets-encryption"), async ({ name }) => {
      const facts = answers.get(name);
      return facts ? (await facts).secrets : container(name);
    }),
    ...checkAddOns(
      flags,
      nodes.filter(({ args }) => hasServiceLb(args)).map(({ name }) => name),
      loadBalancer?.backends.some(([name]) => name === "http") ?? false,
      api,
    ),
  ];
  const front = loadBalancer ? [checkFront(stack, loadBalancer, network, ask, balancer)] : [];
  return runChecks(stack, [
    ...front,
    ...nodes.flatMap((node) => {
      const { name, machine } = node;
      const alias = sshAlias(stack, name);
      const facts = answers.get(name);
      const ofMachine = machine && facts && checkMachine(machine, alias, network, backend, facts);
      return [ofMachine ?? [], checkNode(node, alias, version, api)];
    }),
    whole,
  ]);
}

/** Checks the load balancer's machine. */
async function checkFront(
  stack: string,
  { machine, backends }: NonNullable<ClusterPlan["loadBalancer"]>,
  network: string | undefined,
  ask: ClusterSources["machine"],
  sources: BalancerSources,
): Promise<CheckSpec[]> {
  const alias = sshAlias(stack, machine.name);
  const { address, clock } = await checkComputer(machine, network, askOnce(ask(machine.name)));
  return [address, clock, ...checkLoadBalancer(machine, alias, backends, sources)];
}

const inOrder = (names: readonly string[]): string => [...names].sort().join(", ");

/** The checks of every machine: its address in the lab's network and its clock. @returns also its interface there. */
async function checkComputer(
  { name, ip, interface: wanted }: Pick<Machine, "name" | "ip" | "interface">,
  network: string | undefined,
  facts: Promise<MachineFacts>,
): Promise<{ readonly on: string; readonly address: CheckSpec; readonly clock: CheckSpec }> {
  const on = await facts.then(
    (value) => interfaceOf(value, wanted, ip),
    () => wanted ?? "the lab's interface",
  );
  const address: CheckSpec = {
    id: `${name}/interface`,
    title: `${name}: ${on} carries its address`,
    expected: `${network ? `${ip}/${network.split("/")[1]}` : ip} on ${on}`,
    actual: async () => describeAddress(await facts, ip, on, network !== undefined),
    hint: `Replace the machine: \`scripts/lab down\`, then \`scripts/lab up\`.`,
  };
  const clock: CheckSpec = {
    id: `${name}/clock`,
    title: `${name}: its clock`,
    expected: "the same as this computer's",
    actual: async () => describeClock(await facts),
    hint: `Correct the wrong clock: compare \`date\` here and there. Certificates are refused if clocks differ.`,
  };
  return { on, address, clock };
}

async function checkMachine(
  machine: Machine,
  alias: string,
  network: string | undefined,
  backend: string,
  facts: Promise<MachineFacts>,
): Promise<CheckSpec[]> {
  const { name, ip } = machine;
  const { on, address, clock } = await checkComputer(machine, network, facts);
  const flannel: CheckSpec = {
    id: `${name}/flannel`,
    title: `${name}: flannel's tunnel starts at its address on ${on}`,
    expected: `vxlan over ${on} from ${ip}`,
    actual: async () => describeFlannel(await facts),
    hint: `K3s on ${name} must run with --flannel-iface=${on}: run \`scripts/lab up\`.`,
  };
  const k3s: CheckSpec = {
    id: `${name}/k3s`,
    title: `${name}: K3s runs`,
    expected: "running",
    actual: async () => describeK3s(await facts),
    hint: `See why: \`ssh -F .lab/ssh/${alias}/config ${alias} sudo journalctl --unit 'k3s*' --lines 50\`. Where memory is short, raise the machine's \`memory\` in the stack file, then run \`scripts/lab up\`.`,
  };
  // Only this backend has its own device.
  return [address, ...(backend === "vxlan" ? [flannel] : []), clock, k3s];
}

/** Seconds by which clocks may differ; an answer may be delayed that long. */
const clocksMayDiffer = 60;

function describeClock({ clock }: MachineFacts): string {
  const seconds = Math.abs(clock);
  if (seconds <= clocksMayDiffer) return "the same as this computer's";
  const minutes = Math.round(seconds / 60);
  const [count, unit] = minutes < 120 ? [minutes, "minutes"] : [Math.round(minutes / 60), "hours"];
  return `${count} ${unit} ${clock > 0 ? "ahead of" : "behind"} this computer's`;
}

function describeK3s({ k3s: { state, restarts, killed } }: MachineFacts): string {
  if (state === "running") return state;
  return [
    state || "unknown",
    ...(restarts > 0 ? [`restarted ${restarts} times`] : []),
    ...(killed > 0 ? [`the kernel killed ${killed} processes because memory ran out`] : []),
  ].join("; ");
}

/** The lab's interface: the one that the stack file names, else eth1 where there is one, else the one with the address. */
function interfaceOf({ addresses }: MachineFacts, wanted: string | undefined, ip: string): string {
  if (wanted !== undefined) return wanted;
  if (addresses.some(({ ifname }) => ifname === "eth1")) return "eth1";
  return addresses.find(({ addr_info }) => addr_info.some(({ local }) => local === ip))?.ifname ?? "eth1";
}

function describeAddress({ addresses }: MachineFacts, ip: string, on: string, prefix: boolean): string {
  for (const { ifname, addr_info } of addresses) {
    const mine = addr_info.find(({ local }) => local === ip);
    if (mine) return `${ip}${prefix ? `/${mine.prefixlen}` : ""} on ${ifname}`;
  }
  const there = addresses.find(({ ifname }) => ifname === on);
  if (!there) return `there is no ${on}`;
  return `${on} has ${there.addr_info.map(({ local }) => local).join(", ") || "no address"}`;
}

function describeFlannel({ flannel: [device] }: MachineFacts): string {
  if (!device) return "there is no device flannel.1";
  const { info_kind, info_data } = device.linkinfo;
  return `${info_kind ?? "a device"} over ${info_data.link ?? "nothing"} from ${info_data.local ?? "no address"}`;
}

function checkNode(
  { name, role, machine, args }: PlannedNode,
  alias: string,
  version: string,
  api: Promise<KubernetesApi>,
): CheckSpec[] {
  const node = async (): Promise<Node> => {
    const found = (await (await api).nodes()).find(({ metadata }) => metadata.name === name);
    if (found) return found;
    throw new Error("the cluster has no such node");
  };
  const log = role === "server" ? "k3s" : "k3s-agent";
  return [
    {
      id: `${name}/ready`,
      title: `${name}: the node is Ready`,
      expected: "Ready",
      actual: async () => {
        const ready = (await node()).status.conditions.find(({ type }) => type === "Ready");
        return ready?.status === "True"
          ? "Ready"
          : `NotReady: ${ready?.message ?? "it has reported nothing"}`;
      },
      hint: machine
        ? `See its log: \`ssh -F .lab/ssh/${alias}/config ${alias} sudo journalctl --unit ${log} --lines 50\`.`
        : `See its log: \`docker logs --tail 50 ${name}\`.`,
    },
    ...(machine ? checkAddresses(machine, node) : []),
    {
      id: `${name}/role`,
      title: `${name}: the node's role`,
      expected: role === "server" ? "control-plane" : "none",
      actual: async () =>
        "node-role.kubernetes.io/control-plane" in (await node()).metadata.labels ? "control-plane" : "none",
      hint: `${name} has role ${role} in the stack file. Run \`scripts/lab up\`.`,
    },
    {
      id: `${name}/version`,
      title: `${name}: the kubelet's version`,
      expected: version,
      actual: async () => (await node()).status.nodeInfo.kubeletVersion,
      hint: installs,
    },
    ...checkMarks(name, machine !== undefined, args, node),
  ];
}

/** Checks that a node has the stack file's labels and taints; it may have others. */
function checkMarks(
  name: string,
  isMachine: boolean,
  args: readonly string[],
  node: () => Promise<Node>,
): CheckSpec[] {
  const { labels, taints } = marksIn(args);
  const marks = [...labels, ...taints];
  if (marks.length === 0) return [];
  const commands = [
    ...labels.map((one) => `label nodes ${name} ${one} --overwrite`),
    ...taints.map((one) => `taint nodes ${name} ${one} --overwrite`),
  ];
  return [
    {
      id: `${name}/marks`,
      title: `${name}: the node's labels and taints`,
      expected: marks.join(", "),
      actual: async () => {
        const { metadata, spec } = await node();
        const found = new Set([
          ...Object.entries(metadata.labels).map(([key, value]) => `${key}=${value}`),
          ...(spec?.taints ?? []).map(taintInWords),
        ]);
        return marks.filter((one) => found.has(one.replace("=:", ":"))).join(", ") || "none of them";
      },
      hint: `${isMachine ? "Run `scripts/lab up`" : "K3s gives a node its taints only when it joins: recreate the node"}, or set what is missing: ${commands.map((one) => `\`kubectl ${one}\``).join(", ")}.`,
    },
  ];
}

/** Checks that a node uses its machine's address in the stack file. */
const checkAddresses = ({ name, ip }: Machine, node: () => Promise<Node>): CheckSpec[] => [
  {
    id: `${name}/node-ip`,
    title: `${name}: the node's address`,
    expected: ip,
    actual: async () => {
      const internal = (await node()).status.addresses.filter(({ type }) => type === "InternalIP");
      return internal.map(({ address }) => address).join(", ") || "none";
    },
    hint: installs,
  },
  {
    id: `${name}/flannel-address`,
    title: `${name}: the address to which other nodes send its pods' traffic`,
    expected: ip,
    actual: async () =>
      (await node()).metadata.annotations["flannel.alpha.coreos.com/public-ip"] ?? "none announced",
    hint: installs,
  },
];

const installs = "Run `scripts/lab up`: it installs K3s with the flags that the stack file asks for.";

async function describeSystemPods(api: KubernetesApi): Promise<string> {
  const pods = await api.pods("kube-system");
  if (pods.length === 0) return "there is no pod";
  const late = pods.filter((pod) => !isReady(pod) && !isFinished(pod, pods));
  return (await whyLate(api, "kube-system", late)).join(", ") || "all ready";
}

/**
 * Whether an unready pod can be ignored. A finished Job's pod is Succeeded and stays so; a
 * dead pod is Failed and stays so, which does not matter once another has replaced it or if it had no owner.
 */
function isFinished(pod: Pod, all: readonly Pod[]): boolean {
  if (pod.status.phase === "Succeeded") return true;
  if (pod.status.phase !== "Failed") return false;
  const mine = workloadOf(pod);
  if (mine === undefined) return true;
  const made = ({ metadata: { creationTimestamp = "" } }: Pod) => creationTimestamp;
  return all.some(
    (other) =>
      workloadOf(other) === mine &&
      made(other) > made(pod) &&
      (isReady(other) || other.status.phase === "Succeeded"),
  );
}

/** A pod's workload; a Deployment's ReplicaSets, whose names end in a template hash, count as one. */
export function workloadOf({ metadata: { ownerReferences } }: Pod): string | undefined {
  const [owner] = ownerReferences ?? [];
  if (owner === undefined) return undefined;
  return `${owner.kind} ${owner.kind === "ReplicaSet" ? owner.name.replace(/-[^-]+$/, "") : owner.name}`;
}

/** The taints that keep ServiceLB's pods from nodes, in words. */
const taintsOf = async (api: Pick<KubernetesApi, "nodes">, nodes: readonly string[]): Promise<string[]> =>
  (await api.nodes()).flatMap(({ metadata: { name }, spec }) =>
    (nodes.includes(name) ? (spec?.taints ?? []) : [])
      .map(taintInWords)
      .filter((taint) => !hasServiceLb([`--node-taint=${taint}`]))
      .map((taint) => `${name} has the taint ${taint}`),
  );

/**
 * @param nodes the nodes that run ServiceLB's pods.
 * @param isBalanced whether each of them has its own Traefik.
 */
function checkAddOns(
  flags: K3sFlags,
  nodes: readonly string[],
  isBalanced: boolean,
  api: Promise<KubernetesApi>,
): CheckSpec[] {
  const disabled = flags.disabled();
  const hint = (what: string) =>
    `See why: \`kubectl --namespace kube-system get pods\` and the logs of ${what}.`;
  const nodesOf = async (isOne: (pod: Pod) => boolean) => {
    const serving = (await (await api).pods("kube-system")).filter((pod) => isOne(pod) && isReady(pod));
    // A pod that ran before its node got a taint may keep running there.
    const on = serving.flatMap(({ spec: { nodeName = "?" } }) => (nodes.includes(nodeName) ? nodeName : []));
    const barred = nodes.filter((name) => !on.includes(name));
    const why = barred.length > 0 ? await taintsOf(await api, barred) : [];
    return [inOrder(on) || "on no node", ...why].join("; ");
  };
  const wanted = Object.entries(addOns).filter(([word]) => !disabled.has(word));
  const checks: CheckSpec[] = wanted.map(([, name]) => ({
    id: `add-on/${name}`,
    ...(isBalanced && name === "traefik"
      ? {
          title: "Traefik runs on every node that the load balancer leads to",
          expected: inOrder(nodes),
          actual: () => nodesOf((pod) => workloadOf(pod) === "DaemonSet traefik"),
        }
      : {
          title: `add-on ${name}`,
          expected: "ready",
          actual: async () => {
            const list = await (await api).deployments("kube-system");
            const one = list.find(({ metadata }) => metadata.name === name);
            if (!one) return "not installed";
            const { replicas } = one.spec;
            const { readyReplicas } = one.status;
            return readyReplicas >= Math.max(1, replicas) ? "ready" : `${readyReplicas} of ${replicas} ready`;
          },
        }),
    hint: hint(name),
  }));
  if (disabled.has("servicelb") || disabled.has("traefik")) return checks;
  return [
    ...checks,
    {
      id: "add-on/svclb",
      title: "ServiceLB serves Traefik on every node that allows it",
      expected: inOrder(nodes),
      actual: () => nodesOf(isServiceLb),
      hint: `${hint("svclb-traefik")} A taint that is not in the stack file keeps it away from a node: \`kubectl taint nodes NAME KEY-\`.`,
    },
  ];
}

/** Whether a pod is one of K3s's own add-ons, ServiceLB's among them. */
export function isOfAddOn(pod: Pod): boolean {
  const owners = Object.values(addOns).map((name) => `ReplicaSet ${name}`);
  const owner = workloadOf(pod);
  return owner !== undefined && (owners.includes(owner) || /^DaemonSet (svclb-|traefik$)/.test(owner));
}

/** Whether a pod is ServiceLB's, which forwards a node's ports 80 and 443 to Traefik. */
export const isServiceLb = ({ metadata }: Pod): boolean => metadata.name.startsWith("svclb-traefik-");
