import type { Progress } from "../../stacks/lib/progress.ts";

/** Runs one step of a round, unless the benchmark was stopped, and reports `what`. */
type Step = <T>(what: string, work: () => Promise<T>) => Promise<T>;

/** Something to bring up, measure and take down again; tests pass their own. */
export interface Contender<Result> {
  readonly title: string;
  /** Fills the caches of tools and images. Leaves nothing behind. Not measured. Default: another contender fills them. */
  prepare?(): Promise<void>;
  /** A Docker daemon that answers. Not measured. */
  ready(): Promise<void>;
  /** Measures it from creation to removal. */
  measure(step: Step): Promise<Result>;
  /** Takes down what a failed round left behind, if anything. */
  takeDown(): Promise<unknown>;
}

/**
 * Measures all contenders in each round, so that a temporary slowdown of this computer affects all of them.
 * Whatever happens, leaves nothing behind.
 * @param signal ends the benchmark between two steps.
 * @returns each contender's results, one per round.
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
    progress(`${one.title}: filling the cache with tools and images`);
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
