import { randomUUID } from "node:crypto";
import { link, mkdir, readFile, readlink, rm, stat, utimes, writeFile } from "node:fs/promises";
import { hostname } from "node:os";
import { dirname } from "node:path";
import pWaitFor from "p-wait-for";
import { LabError } from "../../stacks/lib/errors.ts";
import { processId } from "../../stacks/lib/processes.ts";
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

/** How often the holder says that it lives. */
const beatEvery = 10_000;
/** A lock of another computer whose holder has not said so for this long is a dead one's: a home may be shared. */
const silentFor = 12 * beatEvery;

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
 * @throws LabError where the lock's folder cannot be written.
 */
export async function withFileLock<T>(
  file: string,
  work: () => Promise<T>,
  options: { readonly progress?: Progress; readonly signal?: AbortSignal } = {},
): Promise<T> {
  self ??= whoIAm();
  const holder: Holder = { ...(await self), token: randomUUID() };
  await mkdir(dirname(file), { recursive: true }).catch(cannotLock(file));
  if (!(await take(file, holder))) {
    let told = false;
    await pWaitFor(
      async () => {
        options.signal?.throwIfAborted();
        if (await take(file, holder)) return true;
        const other = await readHolder(file);
        if (other && !told) {
          told = true;
          const where = other.host && other.host !== holder.host ? ` on ${other.host}` : "";
          if (other.pid !== process.pid || where)
            options.progress?.(`waiting for process ${other.pid}${where}, which is doing the same (${file})`);
        }
        return false;
      },
      { interval: 100 },
    );
  }
  const beat = setInterval(() => {
    const now = new Date();
    utimes(file, now, now).catch(() => {});
  }, beatEvery);
  beat.unref();
  try {
    return await work();
  } finally {
    clearInterval(beat);
    // One that was taken for dead may find another's lock in its place.
    if ((await readHolder(file))?.token === holder.token) await rm(file, { force: true });
  }
}

const cannotLock = (file: string) => (cause: NodeJS.ErrnoException) => {
  throw new LabError(`${file} cannot be locked: ${cause.message}. Make it writable.`, {
    cause,
  });
};

async function take(file: string, holder: Holder): Promise<boolean> {
  if (await create(file, holder)) return true;
  const other = await readHolder(file);
  if (other === undefined || (await isAlive(file, other, holder))) return false;
  // Only one may clear away a dead holder's lock, or the second to try would clear away the first one's new lock.
  const clearing = `${file}.clearing`;
  if (!(await create(clearing, holder))) {
    if ((await ageOf(clearing)) > 10_000) await rm(clearing, { force: true });
    return false;
  }
  try {
    const still = await readHolder(file);
    if (still?.token === other.token) await rm(file, { force: true });
    return await create(file, holder);
  } finally {
    await rm(clearing, { force: true });
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

async function isAlive(file: string, other: Holder, me: Holder): Promise<boolean> {
  // Whoever writes one without hard links is done within moments.
  if (other.pid === 0) return (await ageOf(file)) < 5000;
  if (other.host !== undefined && other.host !== me.host) return (await ageOf(file)) < silentFor;
  if (other.boot !== undefined && other.boot !== me.boot) return false;
  if (other.ids !== undefined && other.ids !== me.ids) return (await ageOf(file)) < silentFor;
  try {
    process.kill(other.pid, 0);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "EPERM") return false;
  }
  return other.started === (await startOf(other.pid));
}

/** Milliseconds since a file was written, by the clock of its file system: another computer's may go wrong. */
async function ageOf(file: string): Promise<number> {
  const probe = `${file}.${randomUUID()}`;
  try {
    await writeFile(probe, "").catch(cannotLock(file));
    const now = (await stat(probe)).mtimeMs;
    return now - ((await stat(file).catch(() => undefined))?.mtimeMs ?? now);
  } finally {
    await rm(probe, { force: true });
  }
}

const startOf = async (pid: number): Promise<string> => (await processId(pid))?.startTime ?? "";
