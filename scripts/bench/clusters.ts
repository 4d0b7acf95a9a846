import type { Progress } from "../../stacks/lib/progress.ts";
import { downAtLast } from "./index.ts";
import type { Usage } from "./usage.ts";

/** What was measured of one cluster, from nothing until it was gone; times in seconds from the start of the command. */
export interface Measurement extends Usage {
  /** Until all nodes were Ready. */
  readonly nodesReady: number;
  /** Until all apps had answered, seen from outside. */
  readonly appsAnswering: number;
  /** Until one node more was Ready. */
  readonly addNode: number;
  /** Until the cluster, with that node, was gone. */
  readonly takeDown: number;
}

/** A place where a cluster is brought up and measured; tests put their own in its place. */
export interface Site {
  /** In what is reported. */
  readonly title: string;
  /** Fills the caches: tools and images. Leaves no lab behind. Not measured. */
  prepare(): Promise<void>;
  /** A Docker daemon that answers. Not measured. */
  ready(): Promise<void>;
  up(): Promise<Pick<Measurement, "nodesReady" | "appsAnswering">>;
  usage(): Promise<Usage>;
  /** @returns after how many seconds the node was Ready. */
  addNode(): Promise<number>;
  /** @returns how many seconds it took. */
  down(): Promise<number>;
}

/**
 * Measures one cluster from nothing until it is gone. Whatever happens, it is not left behind.
 * @param signal between two steps it ends the measuring.
 */
export async function measure(site: Site, progress: Progress, signal?: AbortSignal): Promise<Measurement> {
  const step = async <T>(what: string, work: () => Promise<T>): Promise<T> => {
    signal?.throwIfAborted();
    progress(`${site.title}: ${what}`);
    return await work();
  };
  await site.ready();
  return await downAtLast(
    async () => {
      const up = await step("bringing it up", () => site.up());
      const usage = await step("reading what it takes", () => site.usage());
      const addNode = await step("adding a node", () => site.addNode());
      const takeDown = await step("taking it down", () => site.down());
      return { ...up, ...usage, addNode, takeDown };
    },
    () => site.down(),
    progress,
  );
}

/**
 * Measures several clusters, one after the other and then again: what slows this computer down for a while slows all.
 * @returns of each site the measurements, one a round.
 */
export async function compareClusters(
  sites: readonly Site[],
  progress: Progress,
  rounds = 1,
  signal?: AbortSignal,
): Promise<readonly (readonly Measurement[])[]> {
  const measured = sites.map((): Measurement[] => []);
  for (const site of sites) {
    signal?.throwIfAborted();
    progress(`${site.title}: preparing: tools and images into the cache`);
    await site.prepare();
  }
  for (let round = 1; round <= rounds; round++)
    for (const [index, site] of sites.entries()) {
      const report = (line: string) => progress(`round ${round} of ${rounds}: ${line}`);
      measured[index]?.push(await measure(site, report, signal));
    }
  return measured;
}
