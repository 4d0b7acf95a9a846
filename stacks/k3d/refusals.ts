import { LabError } from "../../scripts/errors.ts";
import type { Cluster } from "./cluster.ts";
import { strangers } from "./docker.ts";

/**
 * Refuses to go on where so many servers are lost that the rest cannot decide anything.
 * @throws LabError with the documented way back.
 */
export function refuseWithoutQuorum(
  cluster: Pick<Cluster, "name">,
  lost: readonly string[],
  all: number,
): void {
  if (lost.length === 0 || all - lost.length > all / 2) return;
  throw new LabError(
    `The cluster ${cluster.name} has lost ${lost.join(" and ")} of its ${all} servers: the rest is no majority of etcd's members and cannot decide alone. Its data is still in ${all - lost.length === 1 ? "the server" : "the servers"} that is left, and nothing was changed. Save it by \`k3s server --cluster-reset\` there (https://docs.k3s.io/cli/etcd-snapshot), or give it up: lab down, then lab up, make a new, empty cluster.`,
  );
}

export const taken = ({ name }: Pick<Cluster, "name">, what: string): LabError =>
  new LabError(
    `A cluster ${name} is there already, made by somebody else (${what}): give yours another metadata.name, or remove that one with: k3d cluster delete ${name}`,
    { exitCode: 2 },
  );

/** @throws LabError (exit code 2) where something that is not this stack's has a name that the cluster would take. */
export async function refuseStrangers(
  { owner, name }: Pick<Cluster, "owner" | "name">,
  others: readonly string[] = [],
): Promise<void> {
  const found = await strangers(owner, name, others);
  if (found.length) throw taken({ name }, found.map((one) => `${one.kind} ${one.name}`).join(", "));
}
