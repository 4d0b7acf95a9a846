import { LabError, refusal } from "../lib/errors.ts";
import type { Cluster } from "./cluster.ts";
import { docker, nameTaken } from "./docker.ts";

/**
 * Refuses to go on if the cluster has lost its quorum.
 * @param all the cluster's number of servers. @param answers whether a remaining one answers: then etcd has a majority.
 * @throws LabError with the documented way back.
 */
export function refuseWithoutQuorum(
  { name }: Pick<Cluster, "name">,
  lost: readonly string[],
  all: number,
  answers: boolean,
): void {
  const left = all - lost.length;
  if (lost.length === 0 || left > all / 2 || (answers && left > 0)) return;
  const what = `The cluster ${name} has lost ${lost.join(" and ")} of its ${all} servers`;
  throw new LabError(
    left === 0
      ? `${what}: none is left that could be started. Nothing was changed; run the same command again to see what exists.`
      : `${what}: the rest is no majority of etcd's members and cannot decide alone. The rest still has the data, and nothing was changed. Recover it as described in docs/troubleshooting.md ('A cluster that lost most of its servers'; a plain cluster-reset is not enough), or give it up: lab down and then lab up create a new, empty cluster.`,
  );
}

const columns = ["id", "stack", "checkout"].map((name) => `{{.Label "k3s-lab.${name}"}}`);

/** The objects in Docker, a row each: name, owner, and k3d cluster. */
async function list(kind: "container" | "network" | "volume") {
  const [ask, name] = kind === "container" ? [["ps", "--all"], "Names"] : [[kind, "ls"], "Name"];
  const cluster = kind === "container" ? '{{.Label "k3d.cluster"}}' : "";
  const rows = await docker([...ask, "--format", [`{{.${name}}}`, ...columns, cluster].join("\t")]);
  return rows.split("\n").map((row) => {
    const [name = "", id, stack = "", checkout = "", cluster] = row.split("\t");
    return { kind, name, id, stack, checkout, cluster };
  });
}

/**
 * Refuses objects of others whose names the cluster needs. While nothing of the cluster exists, any other container of a
 * cluster of that name is refused too; a node that a person added to this one never is.
 * @param planned the names of its nodes. @param registry its registry's name.
 * @throws LabError (exit code 2) that names the owner and the next step.
 */
export async function refuseTakenNames(
  { owner, name }: Pick<Cluster, "owner" | "name">,
  planned: readonly string[],
  registry?: string,
): Promise<void> {
  const kinds = ["container", "network", "volume"] as const;
  const all = (await Promise.all(kinds.map(list))).flat();
  const isOwn = (one: (typeof all)[number]) => one.id === owner.id && one.stack === owner.stack;
  const isOurs = all.some((one) => one.cluster === name && isOwn(one));
  const isNode = new RegExp(`^k3d-${name}-(server-\\d+|agent-\\d+-0|serverlb)$`);
  const found = all.filter((one) => {
    if (isOwn(one) || one.name === `k3d-${name}-tools`) return false;
    if (one.kind !== "container") return one.name === `k3d-${name}${one.kind === "volume" ? "-images" : ""}`;
    if (one.name === registry || planned.includes(one.name)) return true;
    return !isOurs && (one.cluster === name || isNode.test(one.name));
  });
  const [first] = found;
  if (first === undefined) return;
  if (isOurs || found.every((one) => one.name === registry))
    throw nameTaken(first.name, first.name === registry ? "registries.create.name" : "metadata.name");
  const names = found.map((one) => `${one.kind} ${one.name}`).join(", ");
  const { stack, checkout } = found.find((one) => one.stack !== "") ?? first;
  const [who, next] =
    stack === ""
      ? ["somebody else", `remove that one with: k3d cluster delete ${name}`]
      : [`the stack "${stack}" in ${checkout}`, `take that one down there: scripts/lab down ${stack}`];
  throw refusal(
    `A cluster ${name} already exists, created by ${who} (${names}): set another metadata.name, or ${next}`,
  );
}
