import { existsSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { execa } from "execa";
import { refusal } from "../lib/errors.ts";
import { labDir, root } from "../lib/paths.ts";
import type { Machine } from "../model/config.ts";
import { immutableFlagProblems, quotaProblems } from "../model/k3s-cluster.ts";
import { sshAlias, sshTo } from "../model/ssh-config.ts";
import type { MachineObservation } from "./machine-list.ts";

export interface NodeObservation {
  /**
   * `healthy`: K3s runs as the last installation left it, and its node is Ready. `unknown`: the machine is missing, stopped,
   * or did not answer. Otherwise what is wrong, in a few words.
   */
  readonly state: string;
  /** Whether K3s has data there or was uninstalled by hand: the node was installed once. */
  readonly hasData: boolean;
  /** Whether it was installed and its K3s data is gone. */
  readonly isDataLost?: boolean;
  /** Whether it is a server with etcd. */
  readonly hasEtcd: boolean;
  /** An unmounted mount point of its /etc/fstab or systemd's that K3s's data would be under. */
  readonly unmounted?: string;
  /** The cluster's id: SHA-256 of its certificate authority. Undefined: none yet. */
  readonly cluster?: string | undefined;
  /** The K3s release that was installed last. */
  readonly version?: string | undefined;
  /** SHA-256 of the client certificate in a server's kubeconfig. */
  readonly certificate?: string | undefined;
}

const unknown: NodeObservation = { state: "unknown", hasData: false, hasEtcd: false };

const deadline = 20_000;

/**
 * Observes K3s on a stack's machines in parallel, with one ssh connection each. Changes nothing.
 * @param machines the running ones; others are `unknown`.
 * @returns by the machine's name.
 */
async function observeNodes(
  stack: string,
  machines: readonly Pick<Machine, "name" | "role" | "ip">[],
): Promise<ReadonlyMap<string, NodeObservation>> {
  const folder = join(root, "vagrant", "provision");
  const scripts = await Promise.all(
    ["common.sh", "k3s.sh"].map((file) => readFile(join(folder, file), "utf8")),
  );
  const observe = async ({ name, role, ip }: Pick<Machine, "name" | "role" | "ip">) => {
    const variables = [`NODE_NAME=${name}`, `NODE_ROLE=${role}`, `NODE_IP=${ip}`];
    const { failed, stdout } = await execa(
      "ssh",
      [...sshTo(root, sshAlias(stack, name)), "sudo", "-n", "env", ...variables, "bash", "-s", "observe"],
      { env: { K3S_LAB_ROOT: root }, input: scripts.join(""), reject: false, timeout: deadline },
    );
    return [name, failed ? unknown : readObservation(stdout)] as const;
  };
  return new Map(await Promise.all(machines.map(observe)));
}

/** @param text the output of `provision/k3s.sh observe`. */
export function readObservation(text: string): NodeObservation {
  const lines = text.split("\n").map((line) => /^(\S+) (.+)$/.exec(line)?.slice(1) ?? []);
  const all = (key: string) => lines.filter(([name]) => name === key).map(([, value = ""]) => value);
  const [[state], [unmounted], [cluster], [version], [certificate]] = [
    all("state"),
    all("unmounted"),
    all("ca"),
    all("version"),
    all("certificate"),
  ];
  if (state === undefined) return unknown;
  return {
    ...{ state, cluster, version, certificate },
    ...(unmounted === undefined ? {} : { unmounted }),
    hasData: all("data").length > 0,
    isDataLost: all("data").includes("lost"),
    hasEtcd: all("etcd").length > 0,
  };
}

export interface ObservedNode {
  readonly name: string;
  readonly role: Machine["role"];
  readonly isMachineThere: boolean;
  readonly observed: NodeObservation;
}

/**
 * K3s on the running machines; the state of others is unknown.
 * @param observed the machines' observed state, by name.
 */
export async function observeAllNodes(
  stack: string,
  machines: readonly Machine[],
  observed: ReadonlyMap<string, MachineObservation>,
): Promise<readonly ObservedNode[]> {
  const stateOf = ({ name }: Machine) => observed.get(name)?.state;
  const running = await observeNodes(
    stack,
    machines.filter((machine) => stateOf(machine) === "running"),
  );
  return machines.map((machine) => ({
    name: machine.name,
    role: machine.role,
    isMachineThere: stateOf(machine) !== "absent",
    observed: running.get(machine.name) ?? unknown,
  }));
}

/** Hashes of the servers' current client certificates, as far as known. */
export const certificatesOf = (nodes: readonly ObservedNode[]): readonly string[] =>
  nodes.flatMap(({ observed: { certificate } }) => certificate ?? []);

/** The fault of a node's K3s to repair; undefined if there is none or it is unknown. */
export const nodeFault = ({ state, hasData }: NodeObservation): string | undefined =>
  state === "healthy" || state === "unknown" || (!hasData && state === "K3s is not installed")
    ? undefined
    : state;

/** Whether K3s may have data there: unknown for a machine that did not answer. */
const mayExist = ({ isMachineThere, observed }: ObservedNode): boolean =>
  isMachineThere && (observed.hasData || observed.state === "unknown");

/** Why there is no cluster, as far as its servers show; undefined if there is or may be one. */
export const noCluster = (nodes: readonly ObservedNode[]): string | undefined =>
  nodes.some((node) => node.role === "server" && mayExist(node)) ? undefined : "no server has a cluster";

/**
 * The warning before K3s is installed on servers none of which has the cluster's data any more, although one had it: the
 * cluster's content is gone. Undefined if another server has the data, or may have it.
 */
export function lostData(nodes: readonly ObservedNode[]): string | undefined {
  const there = nodes.filter((node) => node.role === "server" && mayExist(node));
  if (there.length === 0 || there.some(({ observed }) => !observed.isDataLost)) return undefined;
  return `K3s's data on ${there.map(({ name }) => name).join(", ")} is gone, and no other server has the cluster: its contents are lost. A new, empty cluster is started.`;
}

/**
 * Why an agent cannot join the servers' present or future cluster; undefined if it can. Its own cluster is gone for good: no
 * server holds anything of it.
 */
export function lostCluster(agent: ObservedNode, nodes: readonly ObservedNode[]): string | undefined {
  const { state, cluster, hasData } = agent.observed;
  if (!hasData || state === "healthy") return undefined;
  const servers = nodes.filter(({ role }) => role === "server");
  if (noCluster(nodes) !== undefined) return "no server has its cluster any more";
  const clusters = servers.map(({ observed }) => observed.cluster);
  if (cluster === undefined || servers.some(({ observed }) => observed.state === "unknown")) return undefined;
  return clusters.includes(cluster) ? undefined : "the servers have another cluster";
}

function rolloutPhase(observed: NodeObservation): "stopped" | "interrupted" | "lost" | "wrong" | "well" {
  const { state, hasEtcd } = observed;
  if (state === "K3s is stopped") return "stopped";
  if (/interrupted/.test(state)) return "interrupted";
  if (state === "K3s is not installed" && !hasEtcd) return "lost";
  return nodeFault(observed) === undefined ? "well" : "wrong";
}

/**
 * The order of installations and changes: groups, each started when the one before is done. First installations run in
 * parallel; existing nodes change one server after the other, then agents.
 *
 * Servers with a stopped K3s come first, in parallel: without a quorum no other node becomes Ready. Then new servers and
 * those that were recreated or lost their data join, and those with another fault are repaired: changing a healthy server
 * needs enough of the others. But a server that alone keeps its data outside etcd must first migrate it to etcd.
 * @param agentsAtOnce how many agents change in parallel.
 */
export function rolloutGroups(
  nodes: readonly ObservedNode[],
  agentsAtOnce: number,
): readonly (readonly string[])[] {
  const named = (role: Machine["role"], exists: boolean) =>
    nodes.filter((node) => node.role === role && mayExist(node) === exists).map(({ name }) => name);
  const servers = nodes.filter((node) => node.role === "server" && mayExist(node));
  if (servers.length === 0) return [nodes.map(({ name }) => name)];
  const isAlone = servers.length === 1 && !nodes.some(({ observed }) => observed.hasEtcd);
  const inPhase = (turn: ReturnType<typeof rolloutPhase>) =>
    servers.filter(({ observed }) => rolloutPhase(observed) === turn).map(({ name }) => name);
  const oneByOne = (...all: readonly string[]) => all.map((name) => [name]);
  const agents = named("agent", true);
  const batches = agents.flatMap((_, index) =>
    index % agentsAtOnce === 0 ? [agents.slice(index, index + agentsAtOnce)] : [],
  );
  return [
    ...(isAlone
      ? [servers.map(({ name }) => name), named("server", false)]
      : [
          inPhase("stopped"),
          ...oneByOne(...inPhase("interrupted")),
          [...named("server", false), ...inPhase("lost")],
          ...oneByOne(...inPhase("wrong"), ...inPhase("well")),
        ]),
    named("agent", false),
    ...batches,
  ].filter((group) => group.length > 0);
}

/**
 * Refuses to continue without the disk that may hold K3s's data: K3s would start a new cluster beside it.
 * @throws LabError (exit code 2).
 */
export function refuseUnmounted(nodes: readonly ObservedNode[]): void {
  for (const { name, observed } of nodes)
    if (observed.unmounted !== undefined)
      throw refusal(
        `${name}: ${observed.unmounted}, which its /etc/fstab or a mount unit names, is not mounted, and K3s's data may be on it. Nothing was touched. On that machine stop K3s (\`systemctl stop k3s k3s-agent\`) and mount it, or remove it there; then run the same command again.`,
      );
}

const parts = (release: string): readonly number[] =>
  (/^v(\d+)\.(\d+)\.(\d+)\+k3s(\d+)$/.exec(release)?.slice(1) ?? []).map(Number);

/**
 * Refuses a release that the running one cannot change to: https://kubernetes.io/releases/version-skew-policy/
 * @param file the stack file.
 * @throws LabError (exit code 2).
 */
export function refuseVersionJump(file: string, wanted: string, nodes: readonly ObservedNode[]): void {
  const to = parts(wanted);
  for (const { name, observed } of nodes) {
    const from = parts(observed.version ?? "");
    if (!observed.hasData || from.length === 0 || to.length === 0) continue;
    const refuse = (expected: string) =>
      refusal(
        `${file}: k3s-lab:k3s.version: ${wanted} is not accepted, because ${name} runs ${observed.version}; expected ${expected}.`,
      );
    const differs = from.findIndex((part, index) => part !== to[index]);
    const [major = 0, minor = 0] = from;
    if (differs >= 0 && (to[differs] ?? 0) < (from[differs] ?? 0))
      throw refuse(`${observed.version} or later: K3s cannot be downgraded`);
    if (to[0] !== major || (to[1] ?? 0) - minor > 1)
      throw refuse(`a release of v${major}.${minor + 1} first: an upgrade must not skip a minor version`);
  }
}

/**
 * Refuses flags that an existing cluster cannot take, and a quota at which etcd stops for good.
 * @param file the stack file. @param recorded the flags that each server was installed with.
 * @throws LabError (exit code 2).
 */
export function refuseImmutableFlags(
  file: string,
  wanted: readonly string[],
  recorded: readonly (readonly string[])[],
  nodes: readonly ObservedNode[],
): void {
  const isUp = nodes.some(({ role, observed }) => role === "server" && observed.hasData);
  const problems = (isUp ? recorded : [[]]).flatMap((args) => [
    ...(isUp ? immutableFlagProblems(args, wanted) : []),
    ...quotaProblems(args, wanted),
  ]);
  const [why, way] = isUp
    ? ["cannot change while the cluster is up", " For another one take the stack down first."]
    : ["is not accepted", ""];
  const faults = problems.map(
    ({ flag, expected }) => `${file}: k3s-lab:k3s.serverArgs: ${flag} ${why}; expected ${expected}.${way}`,
  );
  if (faults.length > 0) throw refusal([...new Set(faults)].join("\n"));
}

/** Whether the list of a stack's servers, which leaving nodes read, is missing. */
export const isServerListMissing = (stack: string): boolean => !existsSync(join(labDir, stack, "servers"));
