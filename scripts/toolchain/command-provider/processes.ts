import { type ChildProcess, spawn } from "node:child_process";

/** How long a command may take to end by itself once it is asked to; the engine gives the plugin 5 s in all. */
const graceMs = 4_000;

/**
 * Ends the groups that are still noted when its input closes, however the provider died.
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
 * The commands that run now, each in a process group of its own, so that ending one ends all it started.
 * A guard outlives the provider and ends what a killed provider left.
 */
export class Processes {
  readonly #running = new Set<number>();
  #guard: ChildProcess | undefined;

  /** Starts the guard. Call it before a command is started: until its group is noted, nobody would end it. */
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

  /** Notes a group by the id of its first process. Returns what to call when that has ended. */
  add(pid: number): () => void {
    this.#running.add(pid);
    this.#tellGuard(`+${pid}`);
    return () => {
      this.#running.delete(pid);
      this.#tellGuard(`-${pid}`);
    };
  }

  /** Asks a group to end, and makes it end after a grace. Returns what stops the waiting. */
  end(pid: number): () => void {
    signal(pid, "SIGTERM");
    const timer = setTimeout(() => signal(pid, "SIGKILL"), graceMs);
    return () => clearTimeout(timer);
  }

  /** Asks all to end, without waiting: the guard sees to what does not. */
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
    // The group is gone already.
  }
}
