import { LabError } from "../lib/errors.ts";
import { type ClusterConfig, k3sArgsOf } from "../model/config.ts";
import { evictedBy } from "../model/k3s-cluster.ts";
import type { ObservedNode } from "./nodes.ts";
import { preconditionsVariable } from "./preconditions.ts";
import type { Recorded } from "./recorded.ts";

/** The pods that new flags in the stack file may end, in words. */
export const evictions = (
  { machines, k3s }: Pick<ClusterConfig, "machines" | "k3s">,
  {
    recorded,
    observedNodes,
  }: {
    readonly recorded: Pick<Recorded, "nodes">;
    readonly observedNodes: readonly Pick<ObservedNode, "name" | "isMachineThere">[];
  },
): string[] =>
  (recorded.nodes ?? []).flatMap(({ name, args }) => {
    const machine = machines.find((one) => one.name === name);
    const isThere = observedNodes.some((one) => one.name === name && one.isMachineThere);
    return (machine && isThere && evictedBy(name, args, k3sArgsOf(k3s, machine))) || [];
  });

/**
 * Ends a program before its first resource if it would evict pods and nobody was asked: `lab up` asks before it starts the
 * program, and plain Pulumi's own question shows a new taint or limit only as one of a node's flags. A preview warns and continues.
 * @param isAsked Default: whether `lab up` started this program.
 * @throws LabError (exit code 3) that says how to confirm.
 */
export function refuseUnasked(
  stack: string,
  evicted: readonly string[],
  { isPreview, warn }: { readonly isPreview: boolean; readonly warn: (message: string) => unknown },
  isAsked = process.env[preconditionsVariable] !== undefined,
): void {
  if (isAsked || evicted.length === 0) return;
  const message = `This would evict ${evicted.join("; ")}. If you mean it, run \`scripts/lab up ${stack}\`, which asks first (without a terminal, it needs --replace); if not, restore the stack file.`;
  if (!isPreview) throw new LabError(`${message} Nothing was touched.`, { exitCode: 3 });
  warn(`${message} Plain \`pulumi up\` refuses it.`);
}
