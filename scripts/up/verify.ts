import { LabError } from "../../stacks/lib/errors.ts";
import { root } from "../../stacks/lib/paths.ts";
import type { Progress } from "../../stacks/lib/progress.ts";
import { runSteps, type Step, unlessStopped } from "../report.ts";
import { verify } from "../verify/index.ts";
import { describeFailed, renderLines, summarize } from "../verify/report.ts";
import { slownessOf } from "../verify/slowness.ts";
import { applyStack, askLate } from "./apply.ts";
import { restartLatePods } from "./late-pods.ts";
import type { UpRun } from "./run.ts";

/** Seconds that add-ons and pods get to become ready after Pulumi; multiplied on slow machines. */
const verifyWithin = 120;

/** Checks the lab against its stack files, and has Pulumi repair drift. */
export async function verifyOrRepair(run: UpRun): Promise<void> {
  let isDrifted = false;
  const waits = run.changed;
  const first: Step = {
    title: "Verification",
    run: async (progress, signal) => {
      if (waits) await restartLate(run, false, progress);
      const { drifted, summary } = await verifyOnce(run, waits ? verifyWithin : 0, progress, signal);
      isDrifted = drifted.length > 0;
      // Pulumi trusts its state: it detects drift only when it refreshes.
      return isDrifted
        ? `drift detected: ${describeFailed(drifted)}; running \`pulumi up --refresh\``
        : summary;
    },
  };
  await runSteps([[first]], run.stopping);
  if (!isDrifted) return;
  // Confirm losses first.
  for (const stack of run.stacks) {
    await askLate(run, stack, true);
    await applyStack(run, stack, `Repair of ${stack}`, true);
  }
  const second: Step = {
    title: "Verification after the repair",
    run: async (progress, signal) => {
      await restartLate(run, waits, progress);
      const { drifted, summary } = await verifyOnce(run, verifyWithin, progress, signal);
      if (drifted.length === 0) return summary;
      throw new LabError(
        `The lab is up but does not match its stack files:\n${renderLines(drifted)}\nRun \`lab verify\` to check again.`,
      );
    },
  };
  await runSteps([[second]], run.stopping);
}

/**
 * Restarts pods that would otherwise wait out a back-off, though the cause may be fixed.
 * @param hanging whether pods have had enough time to be created.
 */
async function restartLate({ stacks }: UpRun, hanging: boolean, progress: Progress): Promise<void> {
  for (const words of await restartLatePods(stacks, { hanging })) progress(`restarting ${words}`);
}

async function verifyOnce({ stacks }: UpRun, wait: number, progress: Progress, signal: AbortSignal) {
  const began = performance.now();
  const options = { wait: wait * (await slownessOf(stacks, root)), progress };
  const checks = await unlessStopped(verify(stacks, options), signal);
  const failed = checks.filter(({ ok }) => !ok);
  const past = failed.filter(({ isPast }) => isPast);
  const summary = summarize(checks, performance.now() - began);
  return {
    drifted: failed.filter(({ isPast }) => !isPast),
    summary: past.length > 0 ? `${summary}: ${describeFailed(past)}` : summary,
  };
}
