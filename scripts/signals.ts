import { LabError } from "../stacks/lib/errors.ts";

/**
 * Runs a series of commands that each clean up after themselves. The running command receives Ctrl-C too; here
 * it only prevents the next one from starting.
 * @param stopped the message if the series was interrupted.
 * @throws LabError (exit code 130) if it was.
 */
export async function interruptible<T>(
  stopped: string,
  work: (signal: AbortSignal) => Promise<T>,
): Promise<T> {
  const stop = new AbortController();
  const listener = () => stop.abort();
  const names = ["SIGINT", "SIGTERM", "SIGHUP"] as const;
  for (const name of names) process.on(name, listener);
  try {
    return await work(stop.signal);
  } catch (cause) {
    if (!stop.signal.aborted) throw cause;
    throw new LabError(stopped, { cause, exitCode: 130 });
  } finally {
    for (const name of names) process.off(name, listener);
  }
}
