import { randomUUID } from "node:crypto";
import { link, mkdir, readFile, rm, stat, writeFile } from "node:fs/promises";
import { hostname } from "node:os";
import { dirname } from "node:path";
import pWaitFor from "p-wait-for";
import type { Progress } from "../progress.ts";

interface Holder {
  readonly pid: number;
  /** The computer that it runs on: a home may be shared by several. Without one, this computer. */
  readonly host?: string;
  /** Tells a process from a later one with the same id; empty where the system does not say. */
  readonly started: string;
  readonly token: string;
}

/**
 * Runs work while holding a lock that at most one caller on this computer has, in this process or another.
 * A holder that died without releasing it is noticed. Waits as long as the holder works.
 */
export async function withFileLock<T>(
  file: string,
  work: () => Promise<T>,
  options: { readonly progress?: Progress; readonly signal?: AbortSignal } = {},
): Promise<T> {
  const holder: Holder = {
    pid: process.pid,
    host: hostname(),
    started: await startOf(process.pid),
    token: randomUUID(),
  };
  await mkdir(dirname(file), { recursive: true });
  if (!(await take(file, holder))) {
    let told = false;
    await pWaitFor(
      async () => {
        options.signal?.throwIfAborted();
        if (await take(file, holder)) return true;
        const other = await readHolder(file);
        if (other && !told) {
          told = true;
          const { pid, host } = other;
          if (isElsewhere(other))
            options.progress?.(
              `waiting for process ${pid} on ${host}, which is at the same thing. If nothing runs there any more, remove ${file}`,
            );
          else if (pid !== process.pid)
            options.progress?.(`waiting for process ${pid}, which is at the same thing`);
        }
        return false;
      },
      { interval: 100 },
    );
  }
  try {
    return await work();
  } finally {
    await rm(file, { force: true });
  }
}

async function take(file: string, holder: Holder): Promise<boolean> {
  if (await create(file, holder)) return true;
  const other = await readHolder(file);
  if (other === undefined || (await isAlive(other))) return false;
  // Only one may clear away a dead holder's lock, or the second to try would clear away the first one's new lock.
  const clearing = `${file}.clearing`;
  if (!(await create(clearing, holder))) {
    const age = Date.now() - (await stat(clearing).then((found) => found.mtimeMs, Date.now));
    if (age > 10_000) await rm(clearing, { force: true });
    return false;
  }
  try {
    const still = await readHolder(file);
    if (still?.token === other.token && still.pid === other.pid) await rm(file, { force: true });
    return await create(file, holder);
  } finally {
    await rm(clearing, { force: true });
  }
}

/** Makes a file that appears together with its content, or not at all where there is one. */
async function create(file: string, holder: Holder): Promise<boolean> {
  const own = `${file}.${holder.token}`;
  await writeFile(own, JSON.stringify(holder), { mode: 0o600 });
  try {
    await link(own, file);
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "EEXIST") return false;
    throw error;
  } finally {
    await rm(own, { force: true });
  }
}

/** The holder that a lock names; one that cannot be understood was not made by `create`, and nobody holds it. */
async function readHolder(file: string): Promise<Holder | undefined> {
  const text = await readFile(file, "utf8").catch((error: NodeJS.ErrnoException) => {
    if (error.code === "ENOENT") return undefined;
    throw error;
  });
  if (text === undefined) return undefined;
  try {
    const found = JSON.parse(text) as Partial<Holder> | null;
    if (
      typeof found?.pid === "number" &&
      typeof found.started === "string" &&
      typeof found.token === "string"
    )
      return { ...found, pid: found.pid, started: found.started, token: found.token };
  } catch {
    // Half-written, or somebody else's.
  }
  return { pid: 0, started: "", token: "" };
}

const isElsewhere = ({ host }: Holder): boolean => host !== undefined && host !== hostname();

async function isAlive(holder: Holder): Promise<boolean> {
  const { pid, started } = holder;
  if (pid <= 0) return false;
  if (isElsewhere(holder)) return true;
  try {
    process.kill(pid, 0);
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === "EPERM";
  }
  return started === (await startOf(pid));
}

/** When a process started, in clock ticks since boot: the 22nd field of its stat, counted after its name. */
async function startOf(pid: number): Promise<string> {
  const text = await readFile(`/proc/${pid}/stat`, "utf8").catch(() => "");
  return text.slice(text.lastIndexOf(")") + 2).split(" ")[19] ?? "";
}
