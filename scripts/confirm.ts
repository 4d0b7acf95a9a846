import { createInterface } from "node:readline/promises";
import { LabError } from "../stacks/lib/errors.ts";
import type { Loss } from "./losses.ts";

/** Asks the user a question. @returns whether the answer is yes. */
export type Ask = (question: string) => Promise<boolean>;

/**
 * Asks on a terminal whether existing things may be lost.
 * @param allowed whether `--replace` was given. Required without a terminal.
 * @param options.touched whether the run has changed other stacks already. Default: false.
 * @param options.otherwise advice if it was not intended. Default: restore the stack file.
 * @throws LabError if refused: exit code 3 if nothing was touched, else 1.
 */
export async function confirmLosses(
  losses: readonly Loss[],
  allowed: boolean,
  ask: Ask = askOnTerminal,
  {
    touched = false,
    otherwise = "restore the stack file",
  }: { readonly touched?: boolean; readonly otherwise?: string } = {},
): Promise<void> {
  if (losses.length === 0) return;
  const list = losses.map(({ stack, what, how }) => `  ${how} (stack ${stack}): ${what}`).join("\n");
  if (allowed) {
    process.stderr.write(`lab: as --replace allows:\n${list}\n`);
    return;
  }
  if (await ask(`This exists and would be lost:\n${list}\nContinue? [y/N] `)) return;
  throw new LabError(
    `This exists and would be lost:\n${list}\n${touched ? "Nothing of this stack was touched; the stacks before it are done" : "Nothing was touched"}. If you mean it, run the same command with --replace; if not, ${otherwise}.`,
    { exitCode: touched ? 1 : 3 },
  );
}

const askOnTerminal: Ask = async (question) => /^y(es)?$/i.test(await answerOnTerminal(question));

/** The user's answer; undefined without a terminal. */
export async function answerOnTerminal(question: string): Promise<string> {
  if (!process.stdin.isTTY || !process.stderr.isTTY) return "";
  const terminal = createInterface({ input: process.stdin, output: process.stderr });
  const closed = new Promise<string>((resolve) => terminal.once("close", () => resolve("")));
  // While reading, readline alone receives Ctrl-C.
  terminal.once("SIGINT", () => {
    terminal.close();
    process.kill(process.pid, "SIGINT");
  });
  try {
    return (await Promise.race([terminal.question(question), closed])).trim();
  } finally {
    terminal.close();
  }
}
