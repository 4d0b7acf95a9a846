import { CommanderError } from "commander";
import { describeError } from "../stacks/lib/errors.ts";
import { commandLine, verbOf } from "./command-line.ts";
import { dropInheritedVariables, droppedVariables } from "./inherited-variables.ts";

droppedVariables.push(...dropInheritedVariables(process.env));

// Keep running when the reader goes away, as with `| head` or a closed terminal.
for (const stream of [process.stdout, process.stderr]) stream.on("error", () => {});

/** Prints the error and exits; pending work must not keep the process alive. */
function end(error: unknown): never {
  const { message, exitCode } = describeError(error);
  if (process.env.LAB_DEBUG && error instanceof Error) process.stderr.write(`${error.stack}\n`);
  process.stderr.write(`lab: ${message}\n`);
  process.exit(exitCode);
}
process.on("uncaughtException", end);
process.on("unhandledRejection", end);

const verb = verbOf(process.argv.slice(2));
const program = await commandLine(verb);

/** Commands besides `up` and `down` that start programs; false for those that handle interrupts themselves. */
const starting: Record<string, boolean> = {
  box: true,
  bundle: true,
  image: true,
  test: true,
  tools: false,
  bench: false,
  backup: false,
  restore: false,
};
let finish: ((well: boolean) => Promise<void>) | undefined;
program.hook("preAction", async () => {
  const interrupts = starting[verb];
  if (interrupts === undefined) return;
  const { tiePrograms } = await import("./run.ts");
  finish = tiePrograms({ interrupts });
});

try {
  await program.parseAsync();
  await finish?.(true);
} catch (error) {
  await finish?.(false);
  // Commander has already printed the error or the help.
  if (error instanceof CommanderError) process.exit(error.exitCode === 0 ? 0 : 2);
  end(error);
}
