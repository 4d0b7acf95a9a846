import { setTimeout as pause } from "node:timers/promises";
import { InvalidArgumentError } from "commander";
import type { Progress } from "../../stacks/lib/progress.ts";
import type { Check } from "./check.ts";
import { describeFailed } from "./report.ts";

/** Milliseconds between two rounds. */
const interval = 500;

/**
 * Repeats checks until all pass.
 * @param round runs every check once.
 * @param wait seconds for which to repeat it. 0: it runs once.
 * @param progress receives what is still missing, whenever that changes.
 * @returns the checks of the last round.
 */
export async function untilAllPass<One extends Check>(
  round: () => Promise<readonly One[]>,
  wait: number,
  progress?: Progress,
): Promise<readonly One[]> {
  const end = Date.now() + wait * 1000;
  let told = "";
  for (;;) {
    const checks = await round();
    const failed = checks.filter(({ ok, isPast }) => !ok && !isPast);
    const left = end - Date.now();
    if (failed.length === 0 || left <= 0) return checks;
    const missing = describeFailed(failed);
    if (missing !== told) progress?.(`waiting, ${Math.ceil(left / 1000)} s at most: ${missing}`);
    told = missing;
    await pause(Math.min(interval, left));
  }
}

/** Parses the value of `--wait`. */
export function seconds(text: string): number {
  const value = Number(text);
  if (!/^\d+(\.\d+)?$/.test(text) || value > 86_400)
    throw new InvalidArgumentError("A number of seconds from 0 to 86400 is expected.");
  return value;
}
