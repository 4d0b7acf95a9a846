import { type ChildProcess, spawn } from "node:child_process";

/** How long a command may take to exit after SIGTERM; the engine gives the plugin 5 s in all. */
const graceMs = 4_000;

/**
 * When its input closes, however the provider died, ends the groups that are still registered.
 * Each line it reads is `+PID` or `-PID`.
 */
const guardScript = `
running=" "
while read -r line; do
  pid=\${line#?}
  case $line in
    +*) running="$running$pid " ;;
    -*) running="\${running%% $pid *} \${running#* $pid }" ;;
  esac
done
for pid in $running; do kill -s TERM -- "-$pid"; done 2>/dev/null
[ "$running" = " " ] || sleep ${graceMs / 1000}
for pid in $running; do kill -s KILL -- "-$pid"; done 2>/dev/null
`;

/**
 * The running commands, each in its own process group, so that ending one ends everything it started.
 * A guard outlives the provider and ends what a killed provider left running.
 */
export class Processes {
  readonly #running = new Set<number>();
  #guard: ChildProcess | undefined;

  /** Starts the guard. Call this before starting a command: nothing would end an unregistered group. */
  prepare(): void {
    if (this.#guard) return;
    this.#guard = spawn("/bin/sh", ["-c", guardScript], {
      stdio: ["pipe", "ignore", "ignore"],
      detached: true,
      cwd: "/",
    });
    this.#guard.on("error", () => {});
    this.#guard.stdin?.on("error", () => {});
    this.#guard.unref();
  }

  /** Registers a group by the id of its first process. Returns the function to call when that has ended. */
  add(pid: number): () => void {
    this.#running.add(pid);
    this.#tellGuard(`+${pid}`);
    return () => {
      this.#running.delete(pid);
      this.#tellGuard(`-${pid}`);
    };
  }

  /** Terminates a group, and kills it after a grace period. Returns a function that cancels the kill. */
  end(pid: number): () => void {
    signal(pid, "SIGTERM");
    const timer = setTimeout(() => signal(pid, "SIGKILL"), graceMs);
    return () => clearTimeout(timer);
  }

  /** Terminates all groups without waiting: the guard kills the rest. */
  abandon(): void {
    for (const pid of this.#running) signal(pid, "SIGTERM");
  }

  #tellGuard(line: string): void {
    this.#guard?.stdin?.write(`${line}\n`);
  }
}

function signal(pid: number, name: NodeJS.Signals): void {
  try {
    process.kill(-pid, name);
  } catch {
    // The group has already ended.
  }
}
