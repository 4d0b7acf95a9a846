import { LabError } from "../../scripts/errors.ts";
import type { Cluster } from "./cluster.ts";
import { nameTaken, strangers } from "./docker.ts";

/**
 * Refuses to go on where so many servers are lost that the rest cannot decide anything.
 * @param all how many servers the cluster has. @param answers whether one that is left answers: etcd has a majority then.
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
      ? `${what}: nothing is left of it that could be started. Nothing was changed; run the same command again to see what is there.`
      : `${what}: the rest is no majority of etcd's members and cannot decide alone. Its data is still in what is left, and nothing was changed. Save it as docs/troubleshooting.md says (cluster-reset), or give it up: lab down, then lab up, make a new, empty cluster.`,
  );
}

/** @throws LabError (exit code 2) where something that is not this stack's has a name that the cluster would take. */
export async function refuseStrangers(
  { owner, name }: Pick<Cluster, "owner" | "name">,
  others: readonly string[] = [],
): Promise<void> {
  const found = await strangers(owner, name, others);
  const [first] = found;
  if (first === undefined) return;
  if (found.every((one) => one.kind === "container" && others.includes(one.name)))
    throw nameTaken(first.name, "registries.create.name");
  const list = found.map((one) => `${one.kind} ${one.name}`).join(", ");
  const { stack, checkout } = found.find((one) => one.checkout !== "") ?? first;
  const who =
    checkout === ""
      ? ["somebody else", `remove that one with: k3d cluster delete ${name}`]
      : stack === ""
        ? [
            `an earlier version of the lab in ${checkout}, which gave it no mark of its stack, so that this one leaves it alone`,
            `save what you need of it and remove it with: k3d cluster delete ${name}`,
          ]
        : [`the stack "${stack}" in ${checkout}`, `take that one down there: scripts/lab down ${stack}`];
  throw new LabError(
    `A cluster ${name} is there already, made by ${who[0]} (${list}): give yours another metadata.name, or ${who[1]}`,
    { exitCode: 2 },
  );
}
