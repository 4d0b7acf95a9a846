import { spawn } from "node:child_process";
import { chmod, mkdir, open, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import pWaitFor from "p-wait-for";
import { LabError } from "../../stacks/lib/errors.ts";
import { ifThere, writeWhole } from "../../stacks/lib/files.ts";
import { cacheDir } from "../../stacks/lib/paths.ts";
import { isRunning, type ProcessId, processId } from "../../stacks/lib/processes.ts";
import type { Progress } from "../../stacks/lib/progress.ts";
import { withoutMark } from "../run-mark.ts";
import { withFileLock } from "../toolchain/file-lock.ts";
import { lastLines } from "./commands.ts";

/** Where the lab's own daemons have their sockets, and where root's labs find each other's notes. */
export const runDir = "/run/k3s-lab";

const startsWithin = 60_000;
const endsWithin = 45_000;

/** The result of stopping a daemon: there was none of the lab's, it was stopped, or it keeps running for its users. */
export type Stopped =
  | { readonly state: "none" | "ended" }
  | { readonly state: "kept"; readonly by: readonly string[] };

/**
 * The labs' notes on a daemon: a lock, its users, and a record of what existed before the lab started it.
 * Only its owner may access the folder.
 */
export class DaemonNotes<Recorded> {
  readonly #lock: string;
  readonly #record: string;
  readonly #users: string;

  /** @param folder the folder of the notes. The record is in root's, who alone starts daemons. */
  constructor(name: string, folder: string = runDir) {
    this.#lock = join(folder, `${name}.lock`);
    this.#users = join(folder, `${name}-users`);
    this.#record = join(folder, `${name}.json`);
  }

  /** Runs work while no other lab starts or stops the daemon, or creates or removes anything in it. */
  async alone<T>(work: () => Promise<T>, progress: Progress): Promise<T> {
    await mkdir(dirname(this.#lock), { recursive: true, mode: 0o700 });
    await chmod(dirname(this.#lock), 0o700);
    return await withFileLock(this.#lock, work, { progress });
  }

  /**
   * Registers this process as a user of the daemon, before it has anything in it that keeps others from stopping it. The
   * note counts as long as the process lives.
   */
  async noteUser(): Promise<void> {
    const self = await processId(process.pid);
    if (!self) return;
    await mkdir(this.#users, { recursive: true, mode: 0o700 });
    await writeFile(join(this.#users, `${self.pid}-${self.startTime}`), "");
  }

  /** Other processes that use the daemon, as shown to the user. */
  async otherUsers(): Promise<string[]> {
    const others: string[] = [];
    for (const name of (await ifThere(readdir(this.#users))) ?? []) {
      const [pid = "", startTime = ""] = name.split("-");
      if (!(await isRunning({ pid: Number(pid), startTime })))
        await rm(join(this.#users, name), { force: true });
      else if (Number(pid) !== process.pid) others.push(`process ${pid} (lab)`);
    }
    return others;
  }

  /** What existed before the lab started the daemon; undefined if the lab did not start it. */
  record(): Promise<Recorded | undefined> {
    return readFile(this.#record, "utf8")
      .then((text) => JSON.parse(text) as Recorded)
      .catch(() => undefined);
  }

  async keepRecord(record: Recorded): Promise<void> {
    await writeWhole(this.#record, JSON.stringify(record));
  }

  async forget(): Promise<void> {
    await rm(this.#record, { force: true });
    await rm(this.#users, { recursive: true, force: true });
  }
}

export const logOf = (program: string): string => join(cacheDir, "log", `${program}.log`);

/**
 * Starts a daemon that outlives this process. Truncates an earlier one's log.
 * @param program the name for messages and the log.
 * @throws LabError if there is no such program.
 */
export async function startDaemon(
  program: string,
  [command, ...args]: readonly [string, ...string[]],
): Promise<ProcessId> {
  await mkdir(dirname(logOf(program)), { recursive: true });
  const log = await open(logOf(program), "w", 0o600);
  try {
    const stdio = ["ignore", log.fd, log.fd] as const;
    const child = spawn(command, args, { cwd: "/", detached: true, env: withoutMark(), stdio: [...stdio] });
    // A program that cannot be started has no PID; this is reported below.
    child.on("error", () => {});
    child.unref();
    const daemon = child.pid === undefined ? undefined : await processId(child.pid);
    if (!daemon) throw new LabError(`${program} cannot be started. Its log: ${logOf(program)}`);
    return daemon;
  } finally {
    await log.close();
  }
}

export const readLog = (program: string): Promise<string> => readFile(logOf(program), "utf8").catch(() => "");

/**
 * Waits at most a minute for a daemon's answer.
 * @param name such as Docker.
 * @param ask returns why it does not answer, or undefined if it does.
 * @param options.daemon its process, if known: stops waiting when it has ended.
 * @throws LabError with the last lines of its log if it ends or does not answer; whatever `ask` throws.
 */
export async function untilAnswers(
  name: string,
  ask: () => Promise<string | undefined>,
  { daemon, log }: { readonly daemon?: ProcessId; readonly log: () => Promise<string> },
): Promise<void> {
  let problem: string | undefined;
  const failure = async (what: string) =>
    new LabError(
      `${name} ${what}: ${problem}. The last lines of its log:\n${lastLines(await log()) || "(empty)"}`,
    );
  const answers = async () => {
    problem = await ask();
    if (problem !== undefined && daemon && !(await isRunning(daemon)))
      throw await failure("exited while starting");
    return problem === undefined;
  };
  await pWaitFor(answers, { interval: 100, timeout: startsWithin }).catch(async (cause) => {
    throw cause instanceof LabError ? cause : await failure(`does not answer after ${startsWithin / 1000} s`);
  });
}

/** Terminates processes, and kills those that do not end in time. */
export async function endAll(processes: readonly ProcessId[], name: NodeJS.Signals): Promise<void> {
  for (const { pid } of processes) signal(pid, name);
  await untilEnded(processes);
}

/** Waits for processes to end, and kills those that do not. */
export async function untilEnded(processes: readonly ProcessId[]): Promise<void> {
  const all = async () => (await Promise.all(processes.map(isRunning))).every((running) => !running);
  await pWaitFor(all, { interval: 50, timeout: endsWithin }).catch(async () => {
    for (const one of processes) if (await isRunning(one)) signal(one.pid, "SIGKILL");
    await pWaitFor(all, { interval: 50, timeout: 5000 });
  });
}

/** Sends a signal to a process that may have ended meanwhile. */
function signal(pid: number, name: NodeJS.Signals): void {
  try {
    process.kill(pid, name);
  } catch {
    // It has ended.
  }
}
