import { randomUUID } from "node:crypto";
import { readFile, rm } from "node:fs/promises";
import { join } from "node:path";
import { LabError } from "../stacks/lib/errors.ts";
import { ifThere, writeWhole } from "../stacks/lib/files.ts";
import { labDir } from "../stacks/lib/paths.ts";
import { endRun } from "./end-run.ts";
import { markRun } from "./run-mark.ts";
import { withFileLock } from "./toolchain/file-lock.ts";

/**
 * A run that changes the lab; a second one on the same checkout waits for it. However it ends, SIGKILL included, no
 * program that it started keeps running: a small guard process ends them, and the next run checks again.
 * @param work receives a signal that aborts when the run is interrupted; no new step may start then.
 * @throws LabError (exit code 130) if interrupted.
 */
export async function asRun<T>(
  verb: "up" | "down",
  work: (signal: AbortSignal, endChildren: () => Promise<void>) => Promise<T>,
  folder: string = labDir,
): Promise<T> {
  const record = join(folder, "run.json");
  const locked = async () => {
    const left = /"id":"([-0-9a-f]{36})"/.exec((await ifThere(readFile(record, "utf8"))) ?? "")?.[1];
    if (left !== undefined) await endRun(left);
    const id = randomUUID();
    await writeWhole(record, JSON.stringify({ id, verb, pid: process.pid }));
    const controller = new AbortController();
    const { signal } = controller;
    const finish = markRun(id, (name) => {
      if (signal.aborted) {
        void endRun(id, { hard: true }).finally(() => process.exit(130));
        return;
      }
      process.stderr.write(`\nlab: shutting down after ${name}; repeat to stop at once\n`);
      controller.abort(interrupted(verb));
      // A terminal's Ctrl-C has already reached Pulumi, and a second one would abort its graceful exit.
      void endRun(id, { told: name === "SIGINT" && process.stdin.isTTY });
    });
    try {
      return await work(signal, () => endRun(id));
    } catch (error) {
      await endRun(id, { told: signal.aborted });
      throw signal.aborted && !(error instanceof LabError && error.exitCode === 130) ? signal.reason : error;
    } finally {
      await rm(record, { force: true });
      finish();
    }
  };
  const progress = (line: string) => process.stderr.write(`lab: ${line}\n`);
  return await withFileLock(join(folder, "run.lock"), locked, { progress });
}

const interrupted = (verb: "up" | "down"): LabError =>
  new LabError(
    `Interrupted. Completed work is kept: run \`lab ${verb}\` again to continue${verb === "up" ? ", or `lab down` to clean up" : ""}.`,
    { exitCode: 130 },
  );

/**
 * Ties the programs of a command that changes no lab to it: they end if it fails, is interrupted or killed.
 * @param options.interrupts whether an interrupt ends the command; false if it handles interrupts itself.
 * @returns a function to call at the end, with whether it succeeded.
 */
export function tiePrograms({
  interrupts = true,
}: {
  readonly interrupts?: boolean;
} = {}): (well: boolean) => Promise<void> {
  const id = randomUUID();
  let isEnding = false;
  const end = (name: NodeJS.Signals) => {
    if (isEnding) process.exit(130);
    isEnding = true;
    process.stderr.write(`\nlab: ended by ${name}\n`);
    void endRun(id).finally(() => process.exit(130));
  };
  const finish = markRun(id, end, interrupts ? undefined : []);
  return async (well) => {
    if (!well) await endRun(id);
    finish();
  };
}
