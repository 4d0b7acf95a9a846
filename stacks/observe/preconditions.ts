import { LabError } from "../lib/errors.ts";
import type { ClusterConfig, OnCluster } from "../model/config.ts";
import { agentsOf, type K3dFile } from "../model/k3d-file.ts";
import { agentIdentity, clusterIdentity, hashOf } from "../model/k3d-nodes.ts";
import type { ClusterObservation } from "./cluster.ts";
import type { K3dObservation } from "./k3d-host.ts";
import { lostCluster, noCluster } from "./nodes.ts";

/**
 * What decides whether a run replaces or removes something: the files' content, and the generation of each thing, by its
 * name in a sentence.
 */
export type Preconditions = Readonly<Record<string, string>>;

/** Holds what `lab up` found before it asked; with plain Pulumi, which previews instead, it is unset. */
export const preconditionsVariable = "LAB_PRECONDITIONS";

const absent = "absent";

export const clusterPreconditions = (
  config: ClusterConfig,
  {
    provider,
    observedMachines,
    observedNodes,
  }: Pick<ClusterObservation, "provider" | "observedMachines" | "observedNodes">,
): Preconditions => ({
  "the stack file": hashOf(JSON.stringify(config)),
  "the provider": provider,
  "the cluster": noCluster(observedNodes) ?? "",
  ...Object.fromEntries(
    [...observedMachines].map(([name, { state, generation }]) => [
      `the machine ${name}`,
      state === "absent" ? absent : generation,
    ]),
  ),
  ...Object.fromEntries(
    observedNodes
      .filter(({ role }) => role === "agent")
      .map((agent) => [`the cluster of ${agent.name}`, lostCluster(agent, observedNodes) ?? ""]),
  ),
});

/** @param now the generation that the observation gives to what is missing. */
export async function k3dPreconditions(
  file: K3dFile,
  { cluster, agents }: Pick<K3dObservation, "cluster" | "agents">,
  now: string,
): Promise<Preconditions> {
  const making = ({ generation }: { readonly generation: string }) =>
    generation === now ? absent : generation;
  const identities = [clusterIdentity(file), ...agentsOf(file).map((node) => agentIdentity(file, node))];
  return {
    "the k3d config file": hashOf(JSON.stringify([file, await Promise.all(identities)])),
    "the k3d cluster": making(cluster),
    ...Object.fromEntries([...agents].map(([name, agent]) => [`the container ${name}`, making(agent)])),
  };
}

/** @param identity of a cluster that no lab stack created: a lab cluster may be recreated by the same run. */
export const appsPreconditions = (config: OnCluster, identity?: string): Preconditions => ({
  "the stack file": hashOf(JSON.stringify(config)),
  ...(identity === undefined ? {} : { "the cluster": identity }),
});

/**
 * Ends a program before its first resource if `lab up` found and asked about something else: the file was edited meanwhile,
 * or a machine is no longer listed.
 * @param expected Default: what `lab up` found; nothing is expected if it did not start this program.
 * @throws LabError that names what has changed.
 */
export function refuseUnlessMet(
  found: Preconditions,
  expected: string | undefined = process.env[preconditionsVariable],
): void {
  if (expected === undefined) return;
  const before = JSON.parse(expected) as Preconditions;
  const changed = Object.keys({ ...before, ...found }).filter((name) => before[name] !== found[name]);
  if (changed.length === 0) return;
  const words = changed.map((name) =>
    found[name] === absent
      ? `${name} is absent`
      : before[name] === absent
        ? `${name} exists`
        : `${name} has changed`,
  );
  throw new LabError(
    `Since \`lab up\` checked: ${words.join(", ")}. You have not confirmed this, so Pulumi was not started. Run the same command again.`,
  );
}
