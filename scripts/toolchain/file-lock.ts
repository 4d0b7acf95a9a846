import { once } from "node:events";
import { mkdir, readFile, rm } from "node:fs/promises";
import { hostname } from "node:os";
import { dirname, join } from "node:path";
import { execa } from "execa";
import { LabError } from "../../stacks/lib/errors.ts";
import { endGroup } from "../../stacks/lib/processes.ts";
import type { Progress } from "../../stacks/lib/progress.ts";
import { plainEnglish } from "../host/commands.ts";
import { withoutMark } from "../run-mark.ts";

/** Milliseconds after which a waiting run reports whom it waits for. */
const tellAfter = 300;

/**
 * Runs work while holding an exclusive lock, also across processes and computers that share the folder. The kernel
 * releases it however its holder ends. Waits as long as another holder works.
 * @throws LabError if the file cannot be written or locked.
 */
export async function withFileLock<T>(
  file: string,
  work: () => Promise<T>,
  { progress, signal }: { readonly progress?: Progress; readonly signal?: AbortSignal } = {},
): Promise<T> {
  signal?.throwIfAborted();
  const refuse = (reason: string, cause?: unknown): never => {
    throw new LabError(
      `${file} cannot be locked: ${reason}. Its folder must be writable, and on a file system that supports locks.`,
      { cause },
    );
  };
  await mkdir(dirname(file), { recursive: true }).catch((cause: Error) => refuse(cause.message, cause));
  const who = `${process.pid} on ${hostname()}`;
  // In its own process group: neither Ctrl-C nor the clean-up of a run's programs may end it.
  const holder = execa("/bin/sh", [join(import.meta.dirname, "lock.sh"), file, who], {
    ...{ cwd: "/", env: { ...withoutMark(), ...plainEnglish }, extendEnv: false, detached: true },
    ...{ stdin: "pipe", reject: false },
  });
  const telling = setTimeout(async () => {
    const other = await readFile(file, "utf8").catch(() => "");
    progress?.(`waiting for process ${other.trim() || "?"}, which is doing the same (${file})`);
  }, tellAfter);
  try {
    const isHeld = once(holder.stdout, "data", signal ? { signal } : {}).then(() => undefined);
    const failed = await Promise.race([isHeld, holder]).finally(() => clearTimeout(telling));
    signal?.throwIfAborted();
    if (failed)
      refuse(failed.stderr.replace(/^.*lock\.sh: (line )?\d+: /, "") || (failed.shortMessage ?? ""));
    try {
      return await work();
    } finally {
      // Delete it while it is held: whoever then locks the deleted file creates a new one.
      await rm(file, { force: true });
    }
  } catch (error) {
    throw signal?.aborted && (error as Error).name === "AbortError" ? signal.reason : error;
  } finally {
    if (holder.pid !== undefined) endGroup(holder.pid);
    await holder;
  }
}
