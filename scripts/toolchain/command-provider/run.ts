import { spawn } from "node:child_process";
import type { Execution } from "./inputs.ts";
import type { Processes } from "./processes.ts";

/** What a run wrote, without the last newline. */
export interface Outputs {
  readonly stdout: string;
  readonly stderr: string;
}

export interface RunOptions {
  readonly previous: Outputs;
  /** Gets each line of what `logging` lets through, as it comes. */
  readonly log: (line: string) => void;
  readonly processes: Processes;
  /** Ends the command when it fires. */
  readonly signal: AbortSignal;
}

/** The process's environment: the engine's, then `environment`, then the output of the run before where there was any. */
export function buildEnvironment(
  inherited: NodeJS.ProcessEnv,
  { environment, addPreviousOutputInEnv = true }: Execution,
  { stdout, stderr }: Outputs,
): NodeJS.ProcessEnv {
  return {
    ...inherited,
    ...environment,
    ...(addPreviousOutputInEnv && stdout !== "" && { PULUMI_COMMAND_STDOUT: stdout }),
    ...(addPreviousOutputInEnv && stderr !== "" && { PULUMI_COMMAND_STDERR: stderr }),
  };
}

/**
 * Runs one command by `/bin/sh -c` to its end.
 *
 * @throws Error that begins with how it ended and holds the command and all it wrote.
 */
export function run(command: string, execution: Execution, options: RunOptions): Promise<Outputs> {
  const { processes, signal, log } = options;
  const written: string[] = [];
  const failure = (reason: string) =>
    new Error(`${reason}: running ${JSON.stringify(command)}:\n${written.join("")}`);
  if (signal.aborted) return Promise.reject(failure(reasonOf(signal)));
  const env = buildEnvironment(process.env, execution, options.previous);
  // Node's own error would show the value, which may be a secret.
  if ([command, ...Object.values(env)].some((value) => value?.includes("\0")))
    return Promise.reject(failure("a null byte in the command or its environment"));

  return new Promise((settle, reject) => {
    processes.prepare();
    const child = spawn("/bin/sh", ["-c", command], {
      env,
      stdio: [execution.stdin ? "pipe" : "ignore", "pipe", "pipe"],
      detached: true,
    });
    // Its message names the program and the code alone, such as E2BIG.
    child.once("error", (error) => reject(failure(error.message)));
    const { pid } = child;
    if (pid === undefined) return;

    const forget = processes.add(pid);
    let stopWaiting = () => {};
    const end = () => {
      stopWaiting = processes.end(pid);
    };
    signal.addEventListener("abort", end, { once: true });

    const logging = execution.logging ?? "stdoutAndStderr";
    const capture = (stream: NodeJS.ReadableStream | null, isLogged: boolean): (() => string) => {
      const chunks: string[] = [];
      const lines = new LineSplitter(log);
      stream?.setEncoding("utf8");
      stream?.on("data", (chunk: string) => {
        chunks.push(chunk);
        written.push(chunk);
        if (isLogged) lines.push(chunk);
      });
      stream?.once("end", () => lines.flush());
      return () => chunks.join("").replace(/\n$/, "");
    };
    const stdout = capture(child.stdout, logging === "stdout" || logging === "stdoutAndStderr");
    const stderr = capture(child.stderr, logging === "stderr" || logging === "stdoutAndStderr");

    // A command need not read what it is given.
    child.stdin?.on("error", () => {});
    child.stdin?.end(execution.stdin);

    // "close" comes after the last output, also that of what the command left running.
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

/** A line without an end is passed on in parts of this many characters. */
const longestLine = 60_000;

/** Cuts a stream of text into lines. Line ends, CR LF too, are left out. */
export class LineSplitter {
  #rest = "";
  readonly #emit: (line: string) => void;

  constructor(emit: (line: string) => void) {
    this.#emit = emit;
  }

  push(chunk: string): void {
    const lines = (this.#rest + chunk).split("\n");
    this.#rest = lines.pop() ?? "";
    for (const line of lines) this.#emit(line.replace(/\r$/, ""));
    while (this.#rest.length > longestLine) {
      this.#emit(this.#rest.slice(0, longestLine));
      this.#rest = this.#rest.slice(longestLine);
    }
  }

  /** Passes on a last line that has no end. */
  flush(): void {
    if (this.#rest !== "") this.#emit(this.#rest.replace(/\r$/, ""));
    this.#rest = "";
  }
}
