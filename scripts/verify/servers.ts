import { tryDocker } from "../../stacks/k3d/docker.ts";
import { accessOf, readText } from "../../stacks/lib/kube-access.ts";
import { connect, type Revisions } from "../../stacks/lib/kubernetes.ts";
import { type PlannedNode, servedAt } from "../../stacks/model/cluster-plan.ts";
import { chooseContext } from "../../stacks/model/kubeconfig.ts";
import type { CheckSpec } from "./check.ts";

/** Queries one server's API server, which reads from its own etcd member, for the versions of some objects. */
export type AskServer = (server: PlannedNode) => Promise<Revisions>;

/** @param timeout in milliseconds. */
export const serverAsker =
  (kubeconfig: string, timeout: number): AskServer =>
  async ({ name, machine }) => {
    // Not every k3d server is reachable from this computer.
    if (machine === undefined) return await askInContainer(name, timeout);
    const access = await accessOf(chooseContext(await readText(kubeconfig), kubeconfig));
    const api = connect({ ...access, server: `https://${servedAt(machine)}:6443` }, timeout);
    try {
      return await api.revisions();
    } finally {
      api.close();
    }
  };

async function askInContainer(name: string, timeout: number): Promise<Revisions> {
  const versions = 'jsonpath={range .items[*]}{.metadata.uid}{" "}{.metadata.resourceVersion}{"\\n"}{end}end';
  const what = ["get", "nodes,leases.coordination.k8s.io", "--all-namespaces"];
  const answer = await tryDocker(["exec", name, "kubectl", ...what, `--output=${versions}`], {
    within: timeout / 1000,
  });
  const lines = answer.stdout.trim().split("\n");
  // Docker may silently truncate output.
  if (answer.failed || lines.pop() !== "end")
    throw new Error(`docker exec ${name}: ${answer.stderr.trim().split("\n").at(-1) || "no answer"}`);
  return new Map(lines.map((line) => line.split(" ") as [string, string]));
}

const same = "the same data on all that answer";

/** Compares the servers' data; once all agree they are not queried again, which would load them. */
export type CompareServers = (servers: readonly PlannedNode[]) => Promise<string>;

export function serverComparer(ask: AskServer): CompareServers {
  let areSame = false;
  return async (servers) => {
    if (areSame) return same;
    const { answers, reasons } = await askTwice(servers, ask);
    // Another check reports a server that does not answer.
    if (answers.length < 2) throw new Error(`fewer than two servers answer: ${reasons.join("; ")}`);
    const found = describe(answers);
    areSame = found === same && answers.length === servers.length;
    return found;
  };
}

/**
 * Checks that etcd's members have the same data. They diverge if one has applied entries that the others' log lacks,
 * and then every change that depends on an object's version fails on some of them, without any error.
 */
export function checkServers(servers: readonly PlannedNode[], compareServers: CompareServers): CheckSpec[] {
  if (servers.length < 2) return [];
  return [
    {
      id: "servers",
      title: "the servers have the same data",
      expected: same,
      actual: () => compareServers(servers),
      hint: "If they differ, etcd's members have diverged: each rejects the others' changes. Data that only one server has is lost with it, so save it first (`docs/troubleshooting.md`, 'A cluster that lost most of its servers', says how to continue with the data of one server). Then remove that server with `vagrant destroy NAME` (on a host `sudo k3s-uninstall.sh`, in k3d `docker rm --force --volumes NAME`), and run `scripts/lab up`, which recreates it from the others.",
    },
  ];
}

/** A server's two answers. */
interface Answer {
  readonly name: string;
  readonly first: Revisions;
  readonly second: Revisions;
}

/** @returns the answers of servers that answer both times, and the errors of the others. */
async function askTwice(servers: readonly PlannedNode[], ask: AskServer) {
  const askAll = () => Promise.allSettled(servers.map(ask));
  const [before, after] = [await askAll(), await askAll()];
  const answers: Answer[] = [];
  const reasons: string[] = [];
  for (const [index, { name }] of servers.entries()) {
    const [first, second] = [before[index], after[index]];
    if (first?.status === "fulfilled" && second?.status === "fulfilled")
      answers.push({ name, first: first.value, second: second.value });
    else
      reasons.push(
        ...[first, second].flatMap((one) => (one?.status === "rejected" ? String(one.reason?.message) : [])),
      );
  }
  return { answers, reasons: [...new Set(reasons)] };
}

/** What is equal in both answers also held in between, at the same time on all servers; ignores what changed meanwhile. */
function describe(answers: readonly Answer[]): string {
  const uids = new Set(answers.flatMap(({ first, second }) => [...first.keys(), ...second.keys()]));
  const still = [...uids].filter((uid) =>
    answers.every(({ first, second }) => first.get(uid) === second.get(uid)),
  );
  if (uids.size > 0 && still.length === 0) throw new Error("every object changed between two queries");
  const groups = new Map<string, string[]>();
  for (const { name, first } of answers) {
    const has = JSON.stringify(still.map((uid) => first.get(uid) ?? ""));
    groups.set(has, [...(groups.get(has) ?? []), name]);
  }
  if (groups.size < 2) return same;
  const names = [...groups.values()].toSorted((one, other) => other.length - one.length);
  const [most = [], ...others] = names;
  return others.every(({ length }) => length < most.length)
    ? `${others.flat().join(", ")}: data differs from ${most.join(", ")}`
    : names
        .map((group) => group.join(" and "))
        .join("; ")
        .concat(": all have different data");
}
