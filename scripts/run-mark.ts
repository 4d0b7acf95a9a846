import { type ChildProcess, spawn } from "node:child_process";
import { join } from "node:path";

/** Marks every process of a run: children inherit it. Daemons that outlive a run do not have it. */
export const mark = "K3S_LAB_RUN";

/** The environment of a program that outlives the run. */
export function withoutMark(environment: NodeJS.ProcessEnv = process.env): NodeJS.ProcessEnv {
  const { [mark]: _, ...rest } = environment;
  return rest;
}

const interrupts = ["SIGINT", "SIGTERM", "SIGHUP"] as const;

/**
 * Marks all future children of this process as a run's. If this process is killed, a guard ends them.
 * @param interrupt is called for each signal, and with SIGHUP where the npm that started this process was killed: nothing
 * tells it that, but that it has another parent. `package.json` has the shell between the two replaced by it.
 * @param signals the signals to handle. Default: all.
 * @returns a function that undoes it at the end of the run.
 */
export function markRun(
  id: string,
  interrupt: (name: NodeJS.Signals) => void,
  signals: readonly NodeJS.Signals[] = interrupts,
): () => void {
  process.env[mark] = id;
  const guard = startGuard(id);
  const parent = process.ppid;
  const orphaned = setInterval(() => {
    if (process.env.npm_lifecycle_event === undefined || process.ppid === parent) return;
    clearInterval(orphaned);
    interrupt("SIGHUP");
  }, 500).unref();
  for (const name of signals) process.on(name, interrupt);
  return () => {
    clearInterval(orphaned);
    for (const name of signals) process.off(name, interrupt);
    delete process.env[mark];
    guard.stdin?.end("done\n");
  };
}

/** Starts the guard, which ends the run's programs if this process dies first: its standard input then closes. */
function startGuard(id: string): ChildProcess {
  const file = join(import.meta.dirname, "end-run.ts");
  const end = [process.execPath, "--disable-warning=ExperimentalWarning", file, id];
  const guard = spawn("/bin/sh", ["-c", 'read -r _ || exec "$@"', "lab-guard", ...end], {
    cwd: "/",
    detached: true,
    env: withoutMark(),
    stdio: ["pipe", "ignore", "ignore"],
  });
  guard.on("error", () => {});
  guard.stdin?.on("error", () => {});
  guard.unref();
  (guard.stdin as unknown as { unref?: () => void } | null)?.unref?.();
  return guard;
}
