import type { CommandResult, Run } from "./commands.ts";

/** One command that a test lets happen, with what it answers. */
export type Answer = readonly [pattern: RegExp, result: Partial<CommandResult>];

/**
 * A `Run` for tests: answers by the first pattern that fits the command line, and keeps what was asked of it.
 * A command that no pattern fits fails the test.
 */
export function fakeRun(...answers: readonly Answer[]): {
  readonly run: Run;
  readonly commands: string[];
  readonly inputs: string[];
} {
  const commands: string[] = [];
  const inputs: string[] = [];
  const run: Run = async (command, options = {}) => {
    const line = command.join(" ");
    commands.push(line);
    if (options.input) inputs.push(options.input);
    const found = answers.find(([pattern]) => pattern.test(line));
    if (!found) throw new Error(`unexpected command: ${line}`);
    const result = { exitCode: 0, stdout: "", stderr: "", ...found[1] };
    for (const text of result.stdout.split("\n").filter(Boolean)) options.onLine?.(text);
    return result;
  };
  return { run, commands, inputs };
}
