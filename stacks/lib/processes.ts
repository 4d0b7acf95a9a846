import { readdir, readFile } from "node:fs/promises";
import { basename } from "node:path";

/** Identifies one process: the system reuses a pid after its process has ended. */
export interface ProcessId {
  readonly pid: number;
  /** When it was started, in clock ticks since boot. */
  readonly startTime: string;
}

/** The process with this pid; undefined if there is none. */
export async function processId(pid: number): Promise<ProcessId | undefined> {
  const text = await readFile(`/proc/${pid}/stat`, "utf8").catch(() => "");
  const fields = parseStat(text);
  // A zombie has ended; it only waits for its parent to notice.
  return fields && fields.state !== "Z" ? { pid, startTime: fields.startTime } : undefined;
}

/** Whether a process with this pid exists and has not ended; on systems without /proc a zombie counts as alive. */
export async function isAlive(pid: number): Promise<boolean> {
  try {
    process.kill(pid, 0);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "EPERM") return false;
  }
  const stat = parseStat(await readFile(`/proc/${pid}/stat`, "utf8").catch(() => ""));
  return stat?.state !== "Z";
}

/**
 * When the process with this pid was started, in milliseconds since 1970; undefined if none runs. If the system does not
 * say, a running process counts as started long ago.
 */
export async function processStart(pid: number): Promise<number | undefined> {
  const [own, system] = await Promise.all([processId(pid), readFile("/proc/stat", "utf8").catch(() => "")]);
  const booted = Number(/^btime (\d+)$/m.exec(system)?.[1]);
  if (Number.isNaN(booted)) return (await isAlive(pid)) ? 0 : undefined;
  // Ticks are hundredths of a second on all of Linux's architectures that the lab runs on (sysconf(3), _SC_CLK_TCK).
  return own && booted * 1000 + Number(own.startTime) * 10;
}

/** What /proc/PID/stat says; its second field may hold spaces and parentheses (proc(5)). */
export function parseStat(text: string):
  | {
      readonly state: string;
      readonly parent: number;
      readonly startTime: string;
      /** Milliseconds of CPU time; a tick is ten. */
      readonly worked: number;
    }
  | undefined {
  const fields = text.slice(text.lastIndexOf(")") + 2).split(" ");
  const [state, parent, user, system, startTime] = [0, 1, 11, 12, 19].map((index) => fields[index]);
  if (!state || !parent || !startTime) return undefined;
  return { state, parent: Number(parent), startTime, worked: (Number(user) + Number(system)) * 10 };
}

/** Whether this same process still runs. */
export async function isRunning({ pid, startTime }: ProcessId): Promise<boolean> {
  return (await processId(pid))?.startTime === startTime;
}

/** The program and the arguments of a process; empty if it has ended. */
export const commandLine = async ({ pid }: Pick<ProcessId, "pid">): Promise<string[]> =>
  (await readFile(`/proc/${pid}/cmdline`, "utf8").catch(() => "")).split("\0").slice(0, -1);

/** Processes that run one of these programs with a text in their arguments. An editor of such a file does not count. */
export const processesOf = (programs: readonly string[], text: string): Promise<ProcessId[]> =>
  processesThat(async (pid) => {
    const line = await commandLine({ pid });
    return programs.includes(basename(line[0] ?? "")) && `${line.join(" ")} `.includes(text);
  });

/** Whether a process is stopped (SIGSTOP, Ctrl-Z): it does nothing until it is continued. */
export async function isStopped({ pid }: ProcessId): Promise<boolean> {
  const state = parseStat(await readFile(`/proc/${pid}/stat`, "utf8").catch(() => ""))?.state;
  return state === "T" || state === "t";
}

/** The child processes of these. */
export function childrenOf(parents: readonly ProcessId[]): Promise<ProcessId[]> {
  const pids = new Set(parents.map(({ pid }) => pid));
  return processesThat(async (pid) => {
    const text = await readFile(`/proc/${pid}/stat`, "utf8").catch(() => "");
    return pids.has(parseStat(text)?.parent ?? 0);
  });
}

async function processesThat(fit: (pid: number) => Promise<boolean>): Promise<ProcessId[]> {
  const pids = (await readdir("/proc")).filter((name) => /^\d+$/.test(name)).map(Number);
  const found = await Promise.all(
    pids.map(async (pid) => ((await fit(pid)) ? await processId(pid) : undefined)),
  );
  return found.filter((one) => one !== undefined);
}

/** Kills a process group by its leader's pid. */
export function endGroup(pid: number): void {
  try {
    process.kill(-pid, "SIGKILL");
  } catch {
    // It has ended.
  }
}
