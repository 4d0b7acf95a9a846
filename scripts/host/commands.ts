import { createInterface } from "node:readline";
import { execa } from "execa";

export interface CommandResult {
  /** Undefined if the program could not be started or was killed by a signal. */
  readonly exitCode: number | undefined;
  readonly stdout: string;
  readonly stderr: string;
  /** Why there is no exit code: no such program on PATH, or it did not end in time. */
  readonly ended?: "missing" | "timeout";
}

interface CommandOptions {
  /** Standard input. Default: empty. */
  readonly input?: string;
  /** Called with each line that the command prints, as it prints it. */
  readonly onLine?: (line: string) => void;
  /** Milliseconds after which the command is ended. Default: none. */
  readonly timeout?: number;
}

/** Runs a program to its end and never throws for its result; tests pass their own. */
export type Run = (command: readonly string[], options?: CommandOptions) => Promise<CommandResult>;

/**
 * The environment of commands whose output is parsed: gettext follows LANGUAGE in every locale but C, and in C.UTF-8 too.
 * https://www.gnu.org/software/gettext/manual/html_node/The-LANGUAGE-variable.html
 */
export const plainEnglish: Readonly<Record<string, string | undefined>> = {
  LC_ALL: "C",
  LANGUAGE: undefined,
};

export const run: Run = async ([file = "", ...args], { input = "", onLine, timeout } = {}) => {
  const child = execa(file, args, {
    input,
    reject: false,
    all: true,
    env: plainEnglish,
    ...(timeout === undefined ? {} : { timeout }),
  });
  if (onLine) createInterface({ input: child.all }).on("line", onLine);
  const result = await child;
  const ended = result.timedOut ? "timeout" : result.code === "ENOENT" ? "missing" : undefined;
  return {
    exitCode: result.exitCode,
    stdout: result.stdout ?? "",
    // A program that cannot be started, or hangs, prints no error.
    stderr:
      ended === "timeout"
        ? `${file} did not answer within ${(timeout ?? 0) / 1000} s`
        : result.stderr || (result.failed ? (result.shortMessage ?? "") : ""),
    ...(ended ? { ended } : {}),
  };
};

export const lastLines = (text: string, count = 15): string =>
  text.trimEnd().split("\n").slice(-count).join("\n");
