import { randomUUID } from "node:crypto";
import { link, mkdir, readFile, readlink, rm, stat, utimes, writeFile } from "node:fs/promises";
import { hostname } from "node:os";
import { dirname } from "node:path";
import pWaitFor from "p-wait-for";
import { LabError } from "../../stacks/lib/errors.ts";
import { isAlive, processId } from "../../stacks/lib/processes.ts";
import type { Progress } from "../../stacks/lib/progress.ts";

/** Who holds a lock. A process is its computer, that computer's start, its id and its own start. */
interface Holder {
  readonly pid: number;
  /** In clock ticks since boot; empty where the system does not say. */
  readonly started: string;
  readonly token: string;
  readonly host?: string;
  /** Changes with every boot. */
  readonly boot?: string;
  /** Which process ids it sees: a container has its own. */
  readonly ids?: string;
}

/**
 * After how many polls, each of which found it as it was, a holder is dead that cannot be asked after: one of another
 * computer or container, for they may share a home. Polls are counted, not time: clocks are set, and computers sleep.
 */
const silentPolls = 600;
/** The same of what takes moments: writing a lock where there are no hard links, clearing one away. */
const stuckPolls = 50;
/** After so many polls the holder says that it lives. */
const heartbeatPolls = 100;

let self: Promise<Omit<Holder, "token">> | undefined;

async function whoIAm(): Promise<Omit<Holder, "token">> {
  const [started, boot, ids] = await Promise.all([
    startOf(process.pid),
    readFile("/proc/sys/kernel/random/boot_id", "utf8").catch(() => ""),
    readlink("/proc/self/ns/pid").catch(() => ""),
  ]);
  return { pid: process.pid, started, host: hostname(), boot: boot.trim(), ids };
}

/**
 * Runs work while holding a lock that at most one caller has, in this process or another, on this computer or one that
 * shares the folder. A holder that died without releasing it is noticed, and so is a lock that was written by half. Waits
 * as long as the holder works.
 *
 * @param options.pollEvery milliseconds between polls at another's lock. Default: 100.
 * @throws LabError where the lock's folder cannot be written.
 */
export async function withFileLock<T>(
  file: string,
  work: () => Promise<T>,
  options: { readonly progress?: Progress; readonly signal?: AbortSignal; readonly pollEvery?: number } = {},
): Promise<T> {
  const { progress, signal, pollEvery = 100 } = options;
  self ??= whoIAm();
  const lock = new Lock(file, { ...(await self), token: randomUUID() });
  await mkdir(dirname(file), { recursive: true }).catch(cannotLock(file));
  if (!(await lock.take())) {
    const other = await readHolder(file);
    const where = other?.host && other.host !== lock.me.host ? ` on ${other.host}` : "";
    if (other?.pid && (other.pid !== process.pid || where))
      progress?.(`waiting for process ${other.pid}${where}, which is doing the same (${file})`);
    await pWaitFor(() => lock.take(), { interval: pollEvery, ...(signal ? { signal } : {}) });
  }
  const beat = setInterval(() => {
    const now = new Date();
    utimes(file, now, now).catch(() => {});
  }, heartbeatPolls * pollEvery);
  beat.unref();
  try {
    return await work();
  } finally {
    clearInterval(beat);
    // One that was taken for dead may find another's lock in its place.
    if ((await readHolder(file))?.token === lock.me.token) await rm(file, { force: true });
  }
}

const cannotLock = (file: string) => (cause: NodeJS.ErrnoException) => {
  throw new LabError(`${file} cannot be locked: ${cause.message}. Make it writable.`, { cause });
};

/** A lock as one waiting for it sees it. */
class Lock {
  readonly me: Holder;
  readonly #file: string;
  readonly #polls = new Map<string, { readonly as: string; readonly count: number }>();

  constructor(file: string, me: Holder) {
    this.#file = file;
    this.me = me;
  }

  async take(): Promise<boolean> {
    const { me } = this;
    const file = this.#file;
    if (await create(file, me)) return true;
    const other = await readHolder(file);
    if (other === undefined || (await this.#isAlive(other))) return false;
    // Only one may clear away a dead holder's lock, or the second to try would clear away the first one's new lock.
    const clearing = `${file}.clearing`;
    if (!(await create(clearing, me))) {
      if ((await this.#pollsWithoutChange(clearing)) > stuckPolls) await rm(clearing, { force: true });
      return false;
    }
    try {
      const still = await readHolder(file);
      if (still?.token === other.token) await rm(file, { force: true });
      return await create(file, me);
    } finally {
      await rm(clearing, { force: true });
    }
  }

  async #isAlive({ pid, host, boot, ids, started }: Holder): Promise<boolean> {
    const { me } = this;
    const polls = await this.#pollsWithoutChange(this.#file);
    if (pid === 0) return polls < stuckPolls;
    if (host !== undefined && host !== me.host) return polls < silentPolls;
    if (boot !== undefined && boot !== me.boot) return false;
    if (ids !== undefined && ids !== me.ids) return polls < silentPolls;
    return (await isAlive(pid)) && started === (await startOf(pid));
  }

  /** How often in a row this file was found to be the very same. */
  async #pollsWithoutChange(file: string): Promise<number> {
    const { ino = 0, mtimeMs = 0 } = (await stat(file).catch(() => undefined)) ?? {};
    const as = `${ino} ${mtimeMs}`;
    const before = this.#polls.get(file);
    const count = before?.as === as ? before.count + 1 : 0;
    this.#polls.set(file, { as, count });
    return count;
  }
}

/** Makes a file that appears together with its content, or not at all where there is one. */
async function create(file: string, holder: Holder): Promise<boolean> {
  const own = `${file}.${holder.token}`;
  await writeFile(own, JSON.stringify(holder), { mode: 0o600 }).catch(cannotLock(file));
  try {
    await link(own, file);
    return true;
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === "EEXIST") return false;
    if (code !== "EPERM" && code !== "ENOTSUP" && code !== "ENOSYS" && code !== "EMLINK")
      return cannotLock(file)(error as Error);
    // A file system without hard links.
    return await writeFile(file, JSON.stringify(holder), { mode: 0o600, flag: "wx" }).then(
      () => true,
      (again: NodeJS.ErrnoException) => (again.code === "EEXIST" ? false : cannotLock(file)(again)),
    );
  } finally {
    await rm(own, { force: true });
  }
}

/** Undefined where there is no lock. One that cannot be read is nobody's: `pid` 0. */
async function readHolder(file: string): Promise<Holder | undefined> {
  let text: string;
  try {
    text = await readFile(file, "utf8");
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return undefined;
    return cannotLock(file)(error as Error);
  }
  try {
    const holder = JSON.parse(text) as Partial<Holder> | null;
    if (typeof holder?.pid === "number" && typeof holder.token === "string")
      return { started: "", ...holder, pid: holder.pid, token: holder.token };
  } catch {
    // Half written: the computer went down, or its disk was full.
  }
  return { pid: 0, started: "", token: "" };
}

const startOf = async (pid: number): Promise<string> => (await processId(pid))?.startTime ?? "";
