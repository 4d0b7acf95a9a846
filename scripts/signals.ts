import { execa } from "execa";
import { LabError } from "./errors.ts";

/**
 * A signal that fires on the first Ctrl-C (or SIGTERM), so that a long run ends in good order. A running Pulumi gets the
 * interrupt too: it writes down what is done, ends its children and gives up its lock. A second Ctrl-C ends the process.
 */
export function abortOnSignal(): AbortSignal {
  const controller = new AbortController();
  for (const name of ["SIGINT", "SIGTERM"] as const)
    process.once(name, () => {
      process.stderr.write("\nlab: ending in good order; press Ctrl-C again to end at once\n");
      controller.abort();
      // A terminal's Ctrl-C has reached Pulumi already, and a second one would make it give up its orderly end.
      if (name === "SIGTERM" || !process.stdin.isTTY)
        void execa("pkill", ["-INT", "--parent", String(process.pid), "--exact", "pulumi"], {
          reject: false,
        });
    });
  return controller.signal;
}

/**
 * Runs a series of commands that each clean up after themselves. Ctrl-C reaches the command that is running as well; here
 * it only keeps the next one from starting.
 *
 * @param stopped what the person at the keyboard reads when the series was ended so.
 * @throws LabError (exit code 130) when it was.
 */
export async function stoppable<T>(stopped: string, work: (signal: AbortSignal) => Promise<T>): Promise<T> {
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
