import { spawn } from "node:child_process";
import { createInterface } from "node:readline";
import type { Readable } from "node:stream";
import type { Execution } from "./inputs.ts";
import type { Processes } from "./processes.ts";

export interface Outputs {
  readonly stdout: string;
  readonly stderr: string;
}

interface RunOptions {
  /** Receives each line that `logging` lets through, as it arrives. */
  readonly log: (line: string) => void;
  readonly processes: Processes;
  readonly signal: AbortSignal;
}

/**
 * Runs a command with `/bin/sh -c` to its end.
 * @throws Error that begins with how the command ended, and contains it and its output.
 */
export function run(command: string, execution: Execution, options: RunOptions): Promise<Outputs> {
  const { processes, signal, log } = options;
  const { logging = "stdoutAndStderr" } = execution;
  const written: string[] = [];
  const failure = (reason: string) =>
    new Error(`${reason}: running ${JSON.stringify(command)}:\n${written.join("")}`);
  if (signal.aborted) return Promise.reject(failure(reasonOf(signal)));
  const env = { ...process.env, ...execution.environment };
  // Node's own error would show the value, which may be a secret.
  if ([command, ...Object.values(env)].some((value) => value?.includes("\0")))
    return Promise.reject(failure("a null byte in the command or its environment"));

  return new Promise((settle, reject) => {
    processes.prepare();
    const child = spawn("/bin/sh", ["-c", command], {
      env,
      stdio: "pipe",
      detached: true,
    });
    // The message names only the program and the code, such as E2BIG.
    child.once("error", (error) => reject(failure(error.message)));
    const { pid } = child;
    if (pid === undefined) return;

    const forget = processes.add(pid);
    let stopWaiting = () => {};
    const end = () => {
      stopWaiting = processes.end(pid);
    };
    signal.addEventListener("abort", end, { once: true });

    const capture = (stream: Readable, name: "stdout" | "stderr"): (() => string) => {
      const chunks: string[] = [];
      stream.setEncoding("utf8").on("data", (chunk: string) => {
        chunks.push(chunk);
        written.push(chunk);
      });
      if (logging === name || logging === "stdoutAndStderr")
        createInterface({ input: stream, crlfDelay: Number.POSITIVE_INFINITY }).on("line", log);
      return () => chunks.join("").replace(/\n$/, "");
    };
    const stdout = capture(child.stdout, "stdout");
    const stderr = capture(child.stderr, "stderr");

    // A command need not read its input.
    child.stdin.on("error", () => {});
    child.stdin.end(execution.stdin);

    // "close" comes after the last output, including that of processes that the command left running.
    child.once("close", (code, killedBy) => {
      signal.removeEventListener("abort", end);
      stopWaiting();
      forget();
      if (code === 0) return settle({ stdout: stdout(), stderr: stderr() });
      const ended = killedBy ? `signal ${killedBy}` : `exit status ${code}`;
      reject(failure(signal.aborted ? `${reasonOf(signal)}: ${ended}` : ended));
    });
  });
}

const reasonOf = (signal: AbortSignal): string =>
  signal.reason instanceof Error ? signal.reason.message : String(signal.reason);
