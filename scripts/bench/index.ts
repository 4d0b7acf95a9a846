import type { Progress } from "../../stacks/lib/progress.ts";
import type { Kind, Timing, Timings } from "./results.ts";

/** What the benchmark runs and times; tests put their own in its place. */
export interface Contest {
  /** Everything that is cached: tools, images, the machines' image. Leaves no lab behind. Not timed. */
  prepare(): Promise<void>;
  /** What both ways start from: a Docker daemon that answers. Not timed. */
  ready(): Promise<void>;
  byHand(): Promise<Timing>;
  /** Takes down what `byHand` made; does nothing where there is nothing. */
  cleanByHand(): Promise<void>;
  up(): Promise<Timing>;
  down(): Promise<Timing>;
}

/**
 * Runs both ways in turn, so that what slows this computer down for a while slows both; after each `lab up` the same
 * again without a change, then `lab down`. Whatever happens, no lab is left behind.
 *
 * @param rounds how often. Default: 3.
 * @param signal between two commands it ends the benchmark.
 */
export async function runRounds(
  contest: Contest,
  progress: Progress,
  rounds = 3,
  signal?: AbortSignal,
): Promise<Timings> {
  const timings: Record<Kind, Timing[]> = { byHand: [], up: [], upAgain: [], down: [] };
  const run = async (kind: Kind, title: string, command: () => Promise<Timing>) => {
    signal?.throwIfAborted();
    const timing = await command();
    timings[kind].push(timing);
    const answering =
      timing.answering === undefined ? "" : `, apps answering at ${timing.answering.toFixed(1)} s`;
    progress(
      `round ${timings.byHand.length} of ${rounds}: ${title}: ${timing.returned.toFixed(1)} s${answering}`,
    );
  };

  progress("preparing: tools and images into the cache");
  await contest.prepare();
  for (let round = 0; round < rounds; round++) {
    await contest.ready();
    try {
      await run("byHand", "by hand", () => contest.byHand());
    } finally {
      await contest.cleanByHand();
    }
    await contest.ready();
    await downAtLast(
      async () => {
        await run("up", "lab up", () => contest.up());
        await run("upAgain", "lab up, no change", () => contest.up());
        await run("down", "lab down", () => contest.down());
      },
      () => contest.down(),
      progress,
    );
  }
  return timings;
}

/** Does work that ends with a lab that is down; where the work fails on its way there, takes the lab down. */
export async function downAtLast<T>(
  work: () => Promise<T>,
  down: () => Promise<unknown>,
  progress: Progress,
): Promise<T> {
  try {
    return await work();
  } catch (cause) {
    await down().catch((error: Error) => progress(`lab down failed: ${error.message}`));
    throw cause;
  }
}
