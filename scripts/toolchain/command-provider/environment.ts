import { accessSync, constants, statSync } from "node:fs";
import { delimiter, join } from "node:path";
import type { Execution } from "./inputs.ts";

/** What the run before wrote, without the last newline. */
export interface Outputs {
  readonly stdout: string;
  readonly stderr: string;
}

/** The process's environment: the engine's, then `environment`, then the output of the run before where there was any. */
export function buildEnvironment(
  inherited: NodeJS.ProcessEnv,
  execution: Execution,
  previous: Outputs,
): NodeJS.ProcessEnv {
  const isPrevious = execution.addPreviousOutputInEnv ?? true;
  return {
    ...inherited,
    ...execution.environment,
    ...(isPrevious && previous.stdout !== "" && { PULUMI_COMMAND_STDOUT: previous.stdout }),
    ...(isPrevious && previous.stderr !== "" && { PULUMI_COMMAND_STDERR: previous.stderr }),
  };
}

/** Program and arguments of a command. Default interpreter: `/bin/sh -c`. */
export function buildArgv(execution: Execution, command: string): readonly [string, ...string[]] {
  const [program = "/bin/sh", ...rest] = execution.interpreter ?? [];
  return execution.interpreter?.length ? [program, ...rest, command] : [program, "-c", command];
}

/** Where the program is, by the provider's own PATH; `environment` is for the command alone. Undefined: nowhere. */
export function findProgram(program: string, path = process.env.PATH ?? ""): string | undefined {
  if (program.includes("/")) return program;
  return path
    .split(delimiter)
    .map((dir) => join(dir || ".", program))
    .find(isExecutable);
}

function isExecutable(file: string): boolean {
  try {
    accessSync(file, constants.X_OK);
    return statSync(file).isFile();
  } catch {
    return false;
  }
}
