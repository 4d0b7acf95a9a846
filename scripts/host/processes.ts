import { readdir, readFile } from "node:fs/promises";

/** Names one process: its id alone is given to another when it has ended. */
export interface ProcessId {
  readonly pid: number;
  /** When it was started, in clock ticks since boot. */
  readonly startTime: string;
}

/** The process that has this id now, or undefined where none has. */
export async function processId(pid: number): Promise<ProcessId | undefined> {
  const text = await readFile(`/proc/${pid}/stat`, "utf8").catch(() => "");
  const fields = parseStat(text);
  // A zombie has ended; it only waits for its parent to notice.
  return fields && fields.state !== "Z" ? { pid, startTime: fields.startTime } : undefined;
}

/** State and start time out of /proc/PID/stat, whose second field may hold spaces and parentheses (proc(5)). */
export function parseStat(text: string): { readonly state: string; readonly startTime: string } | undefined {
  const fields = text.slice(text.lastIndexOf(")") + 2).split(" ");
  const [state, startTime] = [fields[0], fields[19]];
  return state && startTime ? { state, startTime } : undefined;
}

/** Whether this very process still runs. */
export async function isRunning({ pid, startTime }: ProcessId): Promise<boolean> {
  return (await processId(pid))?.startTime === startTime;
}

/** The processes whose command line holds a text. */
export async function processesWith(text: string): Promise<ProcessId[]> {
  const pids = (await readdir("/proc")).filter((name) => /^\d+$/.test(name)).map(Number);
  const found = await Promise.all(
    pids.map(async (pid) => {
      const line = await readFile(`/proc/${pid}/cmdline`, "utf8").catch(() => "");
      return pid !== process.pid && line.replaceAll("\0", " ").includes(text)
        ? await processId(pid)
        : undefined;
    }),
  );
  return found.filter((one) => one !== undefined);
}
