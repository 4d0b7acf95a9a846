import { existsSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { execa } from "execa";
import { refusal } from "../lib/errors.ts";
import { labDir, root } from "../lib/paths.ts";
import type { Machine } from "../model/config.ts";
import { changedForGood } from "../model/k3s-cluster.ts";
import { sshAlias, sshTo } from "../model/ssh-config.ts";
import type { MachineObservation } from "./machine-list.ts";

export interface NodeObservation {
  /**
   * `healthy`: K3s runs as the last installation left it, and its node is Ready. `unknown`: the machine is not there, does
   * not run, or did not answer. Else what is wrong, in a few words.
   */
  readonly state: string;
  /** Whether K3s keeps data there, or was uninstalled by hand: the node was installed once. */
  readonly hasData: boolean;
  /** Whether it was installed, and the data that K3s kept there is gone. */
  readonly isDataLost?: boolean;
  /** Whether it is a server that keeps the cluster in etcd. */
  readonly hasEtcd: boolean;
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
 * Looks at K3s on machines of a stack, side by side, by one ssh connection to each. Changes nothing.
 * @param machines those that run; what is said of others is `unknown`.
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

/** @param text what `provision/k3s.sh observe` prints. */
export function readObservation(text: string): NodeObservation {
  const lines = text.split("\n").map((line) => /^(\S+) (.+)$/.exec(line)?.slice(1) ?? []);
  const all = (key: string) => lines.filter(([name]) => name === key).map(([, value = ""]) => value);
  const [[state], [cluster], [version], [certificate]] = [
    all("state"),
    all("ca"),
    all("version"),
    all("certificate"),
  ];
  if (state === undefined) return unknown;
  return {
    ...{ state, cluster, version, certificate },
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
 * K3s on the machines, of those that run; what others hold nobody knows.
 * @param observed what was seen of the machines, by name.
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

/** Hashes of the client certificates that servers have now, as far as they are known. */
export const certificatesOf = (nodes: readonly ObservedNode[]): readonly string[] =>
  nodes.flatMap(({ observed: { certificate } }) => certificate ?? []);

/** What is wrong with K3s on a node and must be put right; undefined where nothing is, or where nobody knows. */
export const wrongWith = ({ state, hasData }: NodeObservation): string | undefined =>
  state === "healthy" || state === "unknown" || (!hasData && state === "K3s is not installed")
    ? undefined
    : state;

/** Whether K3s may have data there: of a machine that did not answer nobody knows. */
const mayExist = ({ isMachineThere, observed }: ObservedNode): boolean =>
  isMachineThere && (observed.hasData || observed.state === "unknown");

/** Why there is no cluster, as far as its servers show; undefined where there is one, or may be. */
export const noCluster = (nodes: readonly ObservedNode[]): string | undefined =>
  nodes.some((node) => node.role === "server" && mayExist(node)) ? undefined : "no server has a cluster";

/**
 * What must be said before K3s is installed on servers of which none has the cluster's data any more, and one had it: what
 * the cluster held is gone. Undefined where another server has it, or may have it.
 */
export function lostData(nodes: readonly ObservedNode[]): string | undefined {
  const there = nodes.filter((node) => node.role === "server" && mayExist(node));
  if (there.length === 0 || there.some(({ observed }) => !observed.isDataLost)) return undefined;
  return `K3s's data on ${there.map(({ name }) => name).join(", ")} is gone, and no other server has the cluster: its contents are lost. A new, empty cluster is started.`;
}

/**
 * Why an agent cannot follow into the cluster that the servers have, or will have; undefined where it can. Its own
 * cluster is gone for good: on none of the servers is there anything of it.
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
  return wrongWith(observed) === undefined ? "well" : "wrong";
}

/**
 * Who is installed or changed when: groups, each once the one before is done. First installations go side by side; what
 * runs already changes one server after the other, then agents.
 *
 * Servers whose K3s is stopped come first, side by side: without enough of them nobody else gets Ready. Then those that
 * are new, made again or lost their data join, and those with another fault are put right: a change of one that is well
 * needs enough of the others to go on. Only the one server that still keeps its data alone must first give it to etcd.
 * @param agentsAtOnce how many agents change side by side.
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

const parts = (release: string): readonly number[] =>
  (/^v(\d+)\.(\d+)\.(\d+)\+k3s(\d+)$/.exec(release)?.slice(1) ?? []).map(Number);

/**
 * Refuses a release that what runs cannot go to: https://kubernetes.io/releases/version-skew-policy/
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
 * Refuses flags that a cluster that lives cannot be given any more.
 * @param file the stack file. @param recorded the flags that each server was installed with.
 * @throws LabError (exit code 2).
 */
export function refuseChangedForGood(
  file: string,
  wanted: readonly string[],
  recorded: readonly (readonly string[])[],
  nodes: readonly ObservedNode[],
): void {
  if (!nodes.some(({ role, observed }) => role === "server" && observed.hasData)) return;
  const faults = recorded
    .flatMap((args) => changedForGood(args, wanted))
    .map(
      ({ flag, expected }) =>
        `${file}: k3s-lab:k3s.serverArgs: ${flag} cannot change while the cluster is up; expected ${expected}. For another one take the stack down first.`,
    );
  if (faults.length > 0) throw refusal([...new Set(faults)].join("\n"));
}

/** Whether the list of a stack's servers, which nodes that leave read, is not there. */
export const isServerListMissing = (stack: string): boolean => !existsSync(join(labDir, stack, "servers"));
