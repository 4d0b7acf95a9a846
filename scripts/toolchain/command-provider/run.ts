import { spawn } from "node:child_process";
import { statSync } from "node:fs";
import { constants } from "node:os";
import { resolve } from "node:path";
import { buildArgv, buildEnvironment, findProgram, type Outputs } from "./environment.ts";
import { collectAssets } from "./files.ts";
import type { Execution } from "./inputs.ts";
import { LineSplitter } from "./lines.ts";
import type { Processes } from "./processes.ts";
import { quote } from "./quote.ts";
import { assetArchive, type WireObject } from "./values.ts";

/** What a run leaves: its output, and the files that were asked for. */
export interface RunResult extends Outputs {
  readonly assets?: WireObject;
  readonly archive?: WireObject;
}

export interface RunOptions {
  readonly previous: Outputs;
  /** Gets each line of what `logging` lets through, as it comes. */
  readonly log: (line: string) => void;
  readonly processes: Processes;
  /** Ends the command when it fires. */
  readonly signal: AbortSignal;
}

/**
 * Runs one command to its end.
 *
 * @throws Error that begins with how it ended and holds the command and all it wrote.
 */
export async function run(command: string, execution: Execution, options: RunOptions): Promise<RunResult> {
  const outputs = await runProcess(command, execution, options);
  const dir = execution.dir ?? process.cwd();
  const archived = execution.archivePaths && (await collectAssets(dir, execution.archivePaths));
  return {
    ...outputs,
    ...(execution.assetPaths && { assets: await collectAssets(dir, execution.assetPaths) }),
    ...(archived && { archive: assetArchive(archived) }),
  };
}

function runProcess(command: string, execution: Execution, options: RunOptions): Promise<Outputs> {
  const { processes, signal } = options;
  const [name, ...args] = buildArgv(execution, command);
  const written: string[] = [];
  const failure = (reason: string) => new Error(`${reason}: running ${quote(command)}:\n${written.join("")}`);

  if (signal.aborted) return Promise.reject(failure(reasonOf(signal)));
  const program = findProgram(name);
  if (!program) return Promise.reject(failure(`exec: ${quote(name)}: executable file not found in $PATH`));
  if (execution.dir !== undefined && !isDirectory(execution.dir)) {
    return Promise.reject(failure(`chdir ${execution.dir}: no such file or directory`));
  }

  return new Promise((settle, reject) => {
    const env = buildEnvironment(process.env, execution, options.previous);
    if ([...args, ...Object.values(env)].some((value) => value?.includes("\0"))) {
      // Node's own error would show the value, which may be a secret.
      return reject(failure(`fork/exec ${program}: a null byte in the arguments or the environment`));
    }
    processes.prepare();
    const child = spawn(program, args, {
      argv0: name,
      cwd: resolve(execution.dir ?? "."),
      env,
      stdio: [execution.stdin ? "pipe" : "ignore", "pipe", "pipe"],
      detached: true,
    });
    child.once("error", (error) => reject(failure(startFailure(program, error))));
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
      const lines = new LineSplitter(options.log);
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
      if (code === 0) settle({ stdout: stdout(), stderr: stderr() });
      else {
        const ended = killedBy ? `signal: ${signalText(killedBy)}` : `exit status ${code}`;
        reject(failure(signal.aborted ? `${reasonOf(signal)}: ${ended}` : ended));
      }
    });
  });
}

function reasonOf(signal: AbortSignal): string {
  return signal.reason instanceof Error ? signal.reason.message : String(signal.reason);
}

function isDirectory(path: string): boolean {
  return statSync(path, { throwIfNoEntry: false })?.isDirectory() ?? false;
}

function startFailure(program: string, error: NodeJS.ErrnoException): string {
  const texts: Readonly<Record<string, string>> = {
    ENOENT: "no such file or directory",
    EACCES: "permission denied",
    ENOEXEC: "exec format error",
    E2BIG: "argument list too long",
  };
  return `fork/exec ${program}: ${texts[error.code ?? ""] ?? error.message}`;
}

const signalTexts: Readonly<Partial<Record<NodeJS.Signals, string>>> = {
  SIGHUP: "hangup",
  SIGINT: "interrupt",
  SIGQUIT: "quit",
  SIGILL: "illegal instruction",
  SIGABRT: "aborted",
  SIGBUS: "bus error",
  SIGFPE: "floating point exception",
  SIGKILL: "killed",
  SIGSEGV: "segmentation fault",
  SIGPIPE: "broken pipe",
  SIGALRM: "alarm clock",
  SIGTERM: "terminated",
  SIGUSR1: "user defined signal 1",
  SIGUSR2: "user defined signal 2",
};

function signalText(name: NodeJS.Signals): string {
  return signalTexts[name] ?? `signal ${constants.signals[name]}`;
}
