import { z } from "zod";
import type { HttpAnswer } from "../../stacks/lib/http.ts";
import type { requests } from "../../stacks/lib/kubernetes.ts";

/** The API of a cluster that is being created. */
export interface EarlyApi {
  readonly send: ReturnType<typeof requests>["send"];
  /** The API server as the nodes reach it. */
  readonly inside: URL;
  readonly ca: string | undefined;
}

/** What is done as soon as the API and the nodes allow it. @returns whether nothing is left to do. */
export type EarlyWork = (api: EarlyApi, nodes: readonly EarlyNode[]) => Promise<boolean>;

/** @throws ZodError if the answer is another one. */
export const parsed = <T>({ body }: HttpAnswer, schema: z.ZodType<T>): T => schema.parse(JSON.parse(body));

const allNodes = "/api/v1/nodes";
const texts = z.record(z.string(), z.string()).default({});
const nodesSchema = z.object({
  items: z.array(
    z.object({
      metadata: z.object({ name: z.string(), labels: texts, annotations: texts }),
      spec: z.object({
        podCIDR: z.string().optional(),
        taints: z.array(z.object({ effect: z.string() })).default([]),
      }),
    }),
  ),
});
export type EarlyNode = z.output<typeof nodesSchema>["items"][number];

/** The nodes that have registered. @throws Error if the API server does not answer. */
export const nodesOf = async ({ send }: EarlyApi): Promise<readonly EarlyNode[]> =>
  parsed(await send(allNodes), nodesSchema).items;

/**
 * The number of the first node's network among those of the pods. Kubernetes gives them out from 0 on, so that it never
 * gives a second node one of these, even if it does not know yet that it is taken.
 */
const firstNetwork = 100;

/**
 * Milliseconds after which a node that has registered gets its network: kubelet says at once whether it is Ready, but not
 * for the next ten seconds if it was asked in its first one.
 */
const settled = 2_000;

/** What K3s tells flannel on a node: the network of all pods. */
const flannelSchema = z.object({
  Network: z.string().regex(/^\d+\.\d+\.0\.0\/16$/),
  EnableIPv6: z.literal(false),
});

/** The network of each node, by its name in Kubernetes; none where K3s runs with others than its usual ones. */
function networksOf(flannel: string, nodes: readonly string[]): ReadonlyMap<string, string> {
  try {
    const [prefix] = flannelSchema.parse(JSON.parse(flannel)).Network.split(".0.0/");
    return new Map(
      nodes.map((name, index) => [name.toLowerCase(), `${prefix}.${firstNetwork + index}.0/24`]),
    );
  } catch {
    return new Map();
  }
}

/** K3s's flags on a node, as it writes them down once the node has registered. */
const flagsOf = ({ metadata }: EarlyNode): string | undefined => metadata.annotations["k3s.io/node-args"];

/**
 * Gives each node a network of pods, at which it becomes Ready.
 * @param flannel what K3s tells flannel on a server. @param names of the nodes.
 */
export function networkWork(flannel: string, names: readonly string[]): EarlyWork {
  const networks = networksOf(flannel, names);
  /** When each node was first seen. */
  const seen = new Map<string, number>();
  return async ({ send }, nodes) => {
    if (networks.size === 0) return true;
    const flags = nodes.map(flagsOf).find((args) => args?.startsWith('["server"'));
    if (flags === undefined) return false;
    // The user may have networks cut in another size, or given by something else.
    if (flags.includes("--kube-controller-")) return true;
    const own = nodes.filter(({ metadata }) => networks.has(metadata.name));
    // A cluster that is here from before may have given the network to another node; then the controller gives one.
    const taken = new Set(nodes.map(({ spec }) => spec.podCIDR));
    const without = own
      .filter(({ metadata, spec }) => spec.podCIDR === undefined && !taken.has(networks.get(metadata.name)))
      .map(({ metadata }) => metadata.name);
    for (const name of without) {
      const since = seen.get(name) ?? Date.now();
      seen.set(name, since);
      if (Date.now() - since < settled) continue;
      const podCIDR = networks.get(name);
      await send(`${allNodes}/${name}`, {
        body: JSON.stringify({ spec: { podCIDR, podCIDRs: [podCIDR] } }),
        contentType: "application/merge-patch+json",
      });
    }
    return own.length === networks.size && without.length === 0;
  };
}
