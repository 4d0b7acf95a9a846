import { spawn } from "node:child_process";
import { mkdir, open } from "node:fs/promises";
import { dirname } from "node:path";
import pWaitFor from "p-wait-for";
import { LabError } from "../../stacks/lib/errors.ts";
import { isRunning, type ProcessId, processId } from "../../stacks/lib/processes.ts";
import { withoutMark } from "../run-mark.ts";
import { lastLines } from "./commands.ts";

const startsWithin = 60_000;
const endsWithin = 45_000;

/**
 * Starts a daemon that outlives this process.
 * @param name is what messages call it.
 * @param logFile takes what it prints; what an earlier one printed goes.
 * @throws LabError where there is no such program.
 */
export async function startDaemon(
  name: string,
  [program, ...args]: readonly [string, ...string[]],
  logFile: string,
): Promise<ProcessId> {
  await mkdir(dirname(logFile), { recursive: true });
  const log = await open(logFile, "w", 0o600);
  try {
    const stdio = ["ignore", log.fd, log.fd] as const;
    const child = spawn(program, args, { cwd: "/", detached: true, env: withoutMark(), stdio: [...stdio] });
    // A program that cannot be started has no pid; that is told below.
    child.on("error", () => {});
    child.unref();
    const daemon = child.pid === undefined ? undefined : await processId(child.pid);
    if (!daemon) throw new LabError(`${name} cannot be started. Its log: ${logFile}`);
    return daemon;
  } finally {
    await log.close();
  }
}

/** What became of a daemon: there was none of the lab's, it was ended, or it goes on because of somebody. */
export type Stopped =
  | { readonly state: "none" | "ended" }
  | { readonly state: "kept"; readonly by: readonly string[] };

/** How a daemon that starts is asked for. */
export interface Starting {
  /** Such as Docker. */
  readonly name: string;
  /** Why it does not answer, or undefined where it does. */
  readonly problem: () => Promise<string | undefined>;
  /** Whether its process is still there; one that ended is not waited for. */
  readonly alive: () => boolean | Promise<boolean>;
  readonly log: () => Promise<string>;
  /** What is to be said in place of the log, for a problem that it does not explain. */
  readonly explain?: (problem: string) => LabError | undefined;
}

/**
 * Waits for a daemon's answer, for a minute at most.
 * @throws LabError with the last lines of its log where it ends or does not answer.
 */
export async function untilAnswers({ name, problem: ask, alive, log, explain }: Starting): Promise<void> {
  let problem: string | undefined;
  let hasEnded = false;
  const fail = async (what: string) => {
    const text = lastLines(await log().catch(() => ""));
    return new LabError(`${name} ${what}: ${problem}. The last lines of its log:\n${text || "(empty)"}`);
  };
  try {
    await pWaitFor(
      async () => {
        problem = await ask();
        hasEnded = problem !== undefined && !(await alive());
        return hasEnded || problem === undefined;
      },
      { interval: 100, timeout: startsWithin },
    );
  } catch {
    throw explain?.(problem ?? "") ?? (await fail(`does not answer after ${startsWithin / 1000} s`));
  }
  if (hasEnded) throw await fail("ended while it started");
}

/** Waits for processes to end that were told to, and ends them the hard way when they do not. */
export async function untilEnded(processes: readonly ProcessId[]): Promise<void> {
  const all = async () => (await Promise.all(processes.map(isRunning))).every((running) => !running);
  try {
    await pWaitFor(all, { interval: 50, timeout: endsWithin });
  } catch {
    for (const one of processes) if (await isRunning(one)) signal(one.pid, "SIGKILL");
    await pWaitFor(all, { interval: 50, timeout: 5000 });
  }
}

/** Sends a signal to a process that may have ended meanwhile. */
export function signal(pid: number, name: NodeJS.Signals): void {
  try {
    process.kill(pid, name);
  } catch {
    // It has ended.
  }
}
