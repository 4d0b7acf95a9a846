import { Command } from "commander";
import { type App, programOf, stackFile } from "../../stacks/model/config.ts";
import { bringUp, type UpOptions } from "../up/index.ts";
import type { FoundApp } from "./find-app.ts";
import { type AppChange, changeStackFile, type FileChange } from "./stack-file.ts";

/** Options of the commands that change an app. */
export interface ChangeOptions extends Pick<UpOptions, "replace" | "watch"> {
  readonly stack?: string;
  readonly json?: boolean;
}

/** A command that changes an app of a stack that is up. */
export const changeCommand = (name: string): Command =>
  new Command(name)
    .argument("<app>", "app of a stack that is up, or namespace/app")
    .option("--stack <name>", "stack of the app, if several have one with this name")
    .option("--replace", "also allow everything else that the stack file would replace or remove")
    .option("--json", "print JSON instead: what was changed");

/** The shared help of commands that change an app. @param more a further sentence. Default: none. */
export const changeHelp = (example: string, more = ""): string =>
  `\nEdits only this value in the stack file, then does what \`lab up STACK\` does. If that is refused, fails or is interrupted before Pulumi has begun to change anything, the file is restored; after that it keeps the change. ${more}\nExit codes: those of \`lab up\`.\n\nExample:\n  scripts/lab ${example}`.replace(
    " \n",
    "\n",
  );

/**
 * Changes an app in its stack file, brings that stack up, and prints the result to standard output.
 * @param look reads what to show afterwards. Default: nothing.
 * @throws as `bringUp`. The file is restored if nothing was touched.
 */
export async function changeApp(
  { stack, app }: Pick<FoundApp, "stack" | "app">,
  change: AppChange,
  { json = false, replace = false, watch }: ChangeOptions,
  look: () => Promise<Seen | undefined> = async () => undefined,
): Promise<void> {
  const file = stackFile(stack);
  const tell = (line: string) => process.stderr.write(`lab: ${line}\n`);
  let changed: FileChange | undefined;
  let isBack = false;
  const edit = async () => {
    const { putBack, ...done } = await changeStackFile(stack, app, change);
    changed = done;
    return async () => {
      isBack = await putBack();
      if (isBack) tell(`nothing was touched, and ${file} was restored`);
    };
  };
  const run = () => bringUp([stack], { replace, edit, ...(watch ? { watch } : {}) });
  try {
    await (json ? withStdoutAside(run) : run());
  } catch (error) {
    if (changed !== undefined && changed.before !== changed.after && !isBack)
      tell(`${file} keeps the change, because Pulumi had begun to apply it: ${inWords(changed)}`);
    throw error;
  }
  if (changed === undefined) return;
  const { name, namespace } = app;
  const seen = await look();
  console.log(
    json
      ? JSON.stringify({ stack, namespace, app: name, file, ...changed, ...seen?.json }, null, 2)
      : `\n${name}: ${inWords(changed)} in ${file}${seen ? `\n\n${seen.text}` : ""}`,
  );
}

/** What to show after a change. */
export interface Seen {
  /** Added to the change in the JSON output. */
  readonly json: object;
  readonly text: string;
}

function inWords({ key, before, after }: FileChange): string {
  if (before === after) return `${key} is already ${after ?? "not set"}`;
  return `${key} was ${before ?? "not set"} and is now ${after ?? "not set"}`;
}

/** The apps whose pods a new version of one replaces: those of the guest book share a version. */
export const rolledOutWith = ({ stack, config, app }: FoundApp): readonly App[] =>
  programOf(stack) === "apps" ? [app] : config.apps;

/** Runs work with its messages on standard error: standard output is for JSON. */
async function withStdoutAside<T>(work: () => Promise<T>): Promise<T> {
  const { write } = process.stdout;
  process.stdout.write = process.stderr.write.bind(process.stderr);
  try {
    return await work();
  } finally {
    process.stdout.write = write;
  }
}
