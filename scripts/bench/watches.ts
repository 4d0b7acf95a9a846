import { setTimeout as pause } from "node:timers/promises";
import { readKubeconfig } from "../../stacks/lib/kube-access.ts";
import { connect, type Node } from "../../stacks/lib/kubernetes.ts";

/** Resolves once it has seen what it waits for; rejects when it is aborted. */
export type Watch = (signal: AbortSignal) => Promise<void>;

/** Milliseconds that one reading of the nodes may take: while machines come up, a request may get no answer. */
const patience = 1000;

/** Resolves once this many nodes are Ready. @param readAll reads the nodes; a failure means that there are none yet. */
export const untilReady =
  (count: number, readAll: () => Promise<readonly Node[]>): Watch =>
  async (signal) => {
    for (;;) {
      const late = new AbortController();
      const nodes = await Promise.race([
        readAll().catch(() => []),
        pause(patience, [], { signal: late.signal }).catch(() => []),
      ]);
      late.abort();
      if (nodes.filter(isReady).length >= count) return;
      await pause(100, undefined, { signal });
    }
  };

const isReady = ({ status }: Node): boolean =>
  status.conditions.some(({ type, status: value }) => type === "Ready" && value === "True");

/** Reads the nodes from a kubeconfig's API server; fails while there is no such file. */
export async function readNodes(kubeconfig: string): Promise<readonly Node[]> {
  const api = connect(await readKubeconfig(kubeconfig));
  try {
    return await api.nodes();
  } finally {
    api.close();
  }
}
