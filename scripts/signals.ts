import { LabError } from "../stacks/lib/errors.ts";

/**
 * Runs a series of commands that each clean up after themselves. Ctrl-C reaches the command that is running as well; here
 * it only keeps the next one from starting.
 * @param stopped what the person at the keyboard reads when the series was ended so.
 * @throws LabError (exit code 130) when it was.
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
