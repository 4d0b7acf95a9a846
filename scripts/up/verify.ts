import { LabError } from "../../stacks/lib/errors.ts";
import { root } from "../../stacks/lib/paths.ts";
import type { Progress } from "../../stacks/lib/progress.ts";
import { describeChanges } from "../lab.ts";
import { pulumiStopsWithin } from "../pulumi.ts";
import { runSteps, type Step, unlessStopped } from "../report.ts";
import { noteUpToDate, sourcesOf } from "../up-to-date.ts";
import { verify } from "../verify/index.ts";
import { renderLines, summarize } from "../verify/report.ts";
import { slownessOf } from "../verify/slowness.ts";
import { applyStack, askLate, hasChanged } from "./apply.ts";
import type { UpRun } from "./run.ts";

/** Seconds that add-ons and pods get to become ready once Pulumi is done; on slow machines that many times. */
const verifyWithin = 120;

/** Looks whether the lab is what its stack files say, and has Pulumi repair what is not. */
export async function verifyOrRepair(run: UpRun, changed: boolean): Promise<void> {
  let isDrifted = false;
  const first: Step = {
    title: "Verification",
    run: async (progress, signal) => {
      const { drifted, summary } = await verifyOnce(run, changed ? verifyWithin : 0, progress, signal);
      isDrifted = drifted.length > 0;
      // Pulumi goes by what it noted; what was changed behind its back it sees only when it looks.
      return isDrifted ? "drift detected: running `pulumi refresh`" : summary;
    },
  };
  await runSteps([[first]], run.stopping);
  if (!isDrifted) return;
  await repair(run, changed);
  const second: Step = {
    title: "Verification after the repair",
    run: async (progress, signal) => {
      const { drifted, summary } = await verifyOnce(run, verifyWithin, progress, signal);
      if (drifted.length === 0) return summary;
      throw new LabError(
        `The lab is up but does not match its stack files:\n${renderLines(drifted)}\nRun \`lab verify\` to check again.`,
      );
    },
  };
  await runSteps([[second]], run.stopping);
}

async function verifyOnce({ stacks }: UpRun, wait: number, progress: Progress, signal: AbortSignal) {
  const began = performance.now();
  const options = { wait: wait * (await slownessOf(stacks, root)), progress };
  const checks = await unlessStopped(verify(stacks, options), signal);
  return {
    drifted: checks.filter(({ ok }) => !ok),
    summary: summarize(checks, performance.now() - began),
  };
}

/** Has Pulumi read what is really there, and put it right; what that would take from what lives is asked for first. */
async function repair(run: UpRun, changed: boolean): Promise<void> {
  const { stacks, settings, stopping } = run;
  let touched = changed;
  for (const stack of stacks) {
    await askLate(run, stack, { touched, refresh: true });
    const step: Step = {
      title: `Repair of ${stack}`,
      endsWithin: pulumiStopsWithin,
      run: async (progress, signal) => {
        const sources = await sourcesOf(stack, settings.values);
        const changes = await applyStack(run, stack, true, progress, signal);
        touched ||= hasChanged(changes);
        await noteUpToDate(stack, settings.values, sources);
        return describeChanges(changes);
      },
    };
    await runSteps([[step]], stopping);
  }
}
