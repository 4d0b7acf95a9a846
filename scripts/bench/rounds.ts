import type { Progress } from "../../stacks/lib/progress.ts";

/** Runs one step of a round, unless the benchmark was stopped; `what` is told. */
type Step = <T>(what: string, work: () => Promise<T>) => Promise<T>;

/** Something that is brought up, measured and taken down again; tests pass their own. */
export interface Contender<Result> {
  readonly title: string;
  /** Fills the caches: tools and images. Leaves nothing behind. Not measured. Default: another's have filled them. */
  prepare?(): Promise<void>;
  /** A Docker daemon that answers. Not measured. */
  ready(): Promise<void>;
  /** Measures it from nothing until it is gone. */
  measure(step: Step): Promise<Result>;
  /** Takes down what a failed round left, if anything. */
  takeDown(): Promise<unknown>;
}

/**
 * Measures contenders in turn, and in each round again, so that what slows this computer down for a while slows all.
 * Whatever happens, nothing is left behind.
 * @param signal between two steps it ends the benchmark.
 * @returns of each contender the results, one a round.
 */
export async function measureInRounds<Result>(
  contenders: readonly Contender<Result>[],
  rounds: number,
  progress: Progress,
  signal?: AbortSignal,
): Promise<readonly (readonly Result[])[]> {
  const results = contenders.map((): Result[] => []);
  for (const one of contenders.filter(({ prepare }) => prepare)) {
    signal?.throwIfAborted();
    progress(`${one.title}: preparing: tools and images into the cache`);
    await one.prepare?.();
  }
  for (let round = 1; round <= rounds; round++)
    for (const [index, one] of contenders.entries()) {
      const step: Step = async (what, work) => {
        signal?.throwIfAborted();
        progress(`round ${round} of ${rounds}: ${one.title}: ${what}`);
        return await work();
      };
      await one.ready();
      try {
        results[index]?.push(await one.measure(step));
      } catch (cause) {
        await one
          .takeDown()
          .catch((error: Error) => progress(`${one.title} could not be taken down: ${error.message}`));
        throw cause;
      }
    }
  return results;
}
