import { readdir } from "node:fs/promises";
import { closest } from "fastest-levenshtein";
import { type LabError, refusal } from "../../stacks/lib/errors.ts";
import { root } from "../../stacks/lib/paths.ts";
import { hasResources } from "../../stacks/lib/state.ts";
import {
  type App,
  isOnCluster,
  type OnCluster,
  programNamed,
  programOf,
  readOnCluster,
  schemas,
  stackFile,
} from "../../stacks/model/config.ts";
import { shown } from "../../stacks/model/schema.ts";

/** An app of a stack that is up. */
export interface FoundApp {
  readonly stack: string;
  readonly config: OnCluster;
  readonly app: App;
}

interface FindOptions {
  /** Its stack. Default: the running stack that has it. */
  readonly stack?: string | undefined;
  /** The folder of the stack files. Default: the checkout. */
  readonly directory?: string;
  /** Whether a stack is up. Default: asks Pulumi's state. */
  readonly isUp?: (stack: string) => Promise<boolean>;
}

/**
 * Finds the one matching app. Only running stacks count: the others have nothing to change.
 * @param words its name, or `namespace/name`.
 * @throws LabError (exit code 2) if there is none, or more than one.
 */
export async function findApp(words: string, options: FindOptions = {}): Promise<FoundApp> {
  const { directory = root } = options;
  const stacks = await appStacks(options);
  const [name = "", namespace] = words.split("/").reverse();
  const all: FoundApp[] = [];
  for (const one of stacks) {
    const config = await readOnCluster(one, directory);
    all.push(...config.apps.map((app) => ({ stack: one, config, app })));
  }
  const found = all.filter(
    ({ app }) => app.name === name && (namespace === undefined || app.namespace === namespace),
  );
  const [first] = found;
  if (first === undefined || words.split("/").length > 2) throw unknown(words, stacks, all);
  const owners = [...new Set(found.map((one) => one.stack))];
  if (owners.length > 1)
    throw refusal(
      `The stacks ${owners.join(" and ")} both have an app ${words}. Say which: ${owners.map((one) => `--stack ${one}`).join(" or ")}.`,
    );
  if (found.length > 1) {
    const paths = found.map(({ app }) => `${app.namespace}/${app.name}`);
    throw refusal(`The stack ${first.stack} has several apps ${name}. Say which: ${paths.join(" or ")}.`);
  }
  return first;
}

/**
 * The stacks to search.
 * @throws LabError (exit code 2) if the named one is not a stack of apps, or none is up.
 */
export async function appStacks({
  stack,
  directory = root,
  isUp = hasResources,
}: FindOptions): Promise<readonly string[]> {
  if (stack !== undefined) return [await named(stack, isUp)];
  const stacks = await stacksUp(directory, isUp);
  if (stacks.length > 0) return stacks;
  throw refusal("No stack of apps is up. Bring one up first, such as with scripts/lab up.");
}

/** The running stacks of apps that have a file. */
async function stacksUp(directory: string, isUp: (stack: string) => Promise<boolean>): Promise<string[]> {
  const programs = Object.keys(schemas) as (keyof typeof schemas)[];
  const names = (await readdir(directory)).flatMap((file) => /^Pulumi\.(.+)\.yaml$/.exec(file)?.[1] ?? []);
  const stacks: string[] = [];
  for (const stack of names.sort()) {
    const program = programNamed(stack, programs);
    if (program !== undefined && isOnCluster(program) && (await isUp(stack))) stacks.push(stack);
  }
  return stacks;
}

async function named(stack: string, isUp: (stack: string) => Promise<boolean>): Promise<string> {
  if (!isOnCluster(programOf(stack)))
    throw refusal(`The stack ${stack} has no apps. Choose an apps… or my-app… stack.`);
  if (!(await isUp(stack)))
    throw refusal(`The stack ${stack} is not up. Bring it up first: scripts/lab up ${stack}.`);
  return stack;
}

function unknown(words: string, stacks: readonly string[], all: readonly FoundApp[]): LabError {
  const known = [...new Set(all.flatMap(({ app }) => [app.name, `${app.namespace}/${app.name}`]))];
  const names = [...new Set(all.map(({ app }) => app.name))];
  return refusal(
    `${stacks.map(stackFile).join(", ")}: no app ${shown(words)}; did you mean "${closest(words, known)}"? Apps: ${names.join(", ")}.`,
  );
}
