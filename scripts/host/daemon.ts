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

/** Where daemons of the lab's own have their sockets, and where labs of root find what others of root are at. */
export const runDir = "/run/k3s-lab";

const startsWithin = 60_000;
const endsWithin = 45_000;

/** What became of a daemon: there was none of the lab's, it was ended, or it goes on because of somebody. */
export type Stopped =
  | { readonly state: "none" | "ended" }
  | { readonly state: "kept"; readonly by: readonly string[] };

/**
 * What labs keep of a daemon: a lock, who is at work with it, and a record of what was there before the lab started it.
 * Their folder is its owner's alone.
 */
export class DaemonNotes<Recorded> {
  readonly #lock: string;
  readonly #record: string;
  readonly #users: string;

  /** @param folder where all that is. A record is in that of root, who alone starts daemons. */
  constructor(name: string, folder: string = runDir) {
    this.#lock = join(folder, `${name}.lock`);
    this.#users = join(folder, `${name}-users`);
    this.#record = join(folder, `${name}.json`);
  }

  /** Does work while no other lab starts or ends the daemon, or makes or takes away what is in it. */
  async alone<T>(work: () => Promise<T>, progress: Progress): Promise<T> {
    await mkdir(dirname(this.#lock), { recursive: true, mode: 0o700 });
    await chmod(dirname(this.#lock), 0o700);
    return await withFileLock(this.#lock, work, { progress });
  }

  /**
   * Notes that this process is at work with the daemon: it has nothing in it yet that would keep others from ending it. The
   * note counts as long as the process lives.
   */
  async noteUser(): Promise<void> {
    const self = await processId(process.pid);
    if (!self) return;
    await mkdir(this.#users, { recursive: true, mode: 0o700 });
    await writeFile(join(this.#users, `${self.pid}-${self.startTime}`), "");
  }

  /** Other processes that are at work with the daemon, as a person is told of them. */
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

  /** What there was before the lab started the daemon; undefined where the lab did not. */
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
 * Starts a daemon that outlives this process. What an earlier one has printed goes.
 * @param program is what messages and its log are called.
 * @throws LabError where there is no such program.
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
    // A program that cannot be started has no pid; that is told below.
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
 * Waits for a daemon's answer, for a minute at most.
 * @param name such as Docker.
 * @param ask why it does not answer, or undefined where it does.
 * @param options.daemon its process, where it is known: one that ended is not waited for.
 * @throws LabError with the last lines of its log where it ends or does not answer; what `ask` throws.
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
      throw await failure("ended while it started");
    return problem === undefined;
  };
  await pWaitFor(answers, { interval: 100, timeout: startsWithin }).catch(async (cause) => {
    throw cause instanceof LabError ? cause : await failure(`does not answer after ${startsWithin / 1000} s`);
  });
}

/** Ends processes, the hard way those that do not end by a signal in time. */
export async function endAll(processes: readonly ProcessId[], name: NodeJS.Signals): Promise<void> {
  for (const { pid } of processes) signal(pid, name);
  await untilEnded(processes);
}

/** Waits for processes to end, and ends them the hard way when they do not. */
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
