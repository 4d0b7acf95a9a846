import { readFile, realpath, stat } from "node:fs/promises";
import { join } from "node:path";
import { type LabError, refusal } from "../../stacks/lib/errors.ts";
import { writeWhole } from "../../stacks/lib/files.ts";
import { root } from "../../stacks/lib/paths.ts";
import { type App, parseOnCluster, programOf, stackFile } from "../../stacks/model/config.ts";
import { keyPath } from "../../stacks/model/schema.ts";
import { removeFromYaml, setInYaml, type YamlPath } from "./edit-yaml.ts";

/** The change of an app in its stack file. A new version, or no canary, removes the canary. */
export type AppChange =
  | { readonly replicas: number }
  | { readonly version: string }
  | { readonly canary: string | null };

type Value = string | number | null;

/** The change made to a stack file. */
export interface FileChange {
  /** The key that has the value, such as `k3s-lab:apps[1].replicas`. */
  readonly key: string;
  /** Null: it had none. */
  readonly before: Value;
  readonly after: Value;
}

/**
 * The text of a stack file with one value of an app changed. The apps of the guest book share their version.
 * @throws LabError (exit code 2) if the file has no such app or the result is invalid.
 */
export function withChange(
  stack: string,
  text: string,
  { name, namespace }: Pick<App, "name" | "namespace">,
  change: AppChange,
): FileChange & { readonly text: string } {
  const file = stackFile(stack);
  const { apps } = parseOnCluster(stack, text);
  const index = apps.findIndex((one) => one.name === name && one.namespace === namespace);
  const app = apps[index];
  if (app === undefined) throw refused(`${file}: the app ${namespace}/${name} no longer exists`);
  const [[field, value]] = Object.entries(change) as [[Field, Value]];
  const path = pathTo(stack, index, name, field);
  const key = keyPath(path.slice(1));
  if (field === "replicas" && app.autoscaling)
    throw refused(
      `${file}: ${name} is autoscaled, from ${app.autoscaling.min} to ${app.autoscaling.max} pods. Change min and max in ${key}, or set a number there, then run scripts/lab up ${stack}`,
    );
  const before = app[field] ?? null;
  const edited = before === value ? text : edit(text, path, value);
  if (edited === undefined)
    throw refused(
      `${file}: ${key} cannot be changed without changing another value, such as through an alias. ${value === null ? "Remove it" : `Write ${JSON.stringify(value)}`} there yourself, then run scripts/lab up ${stack}`,
    );
  const canaryAt = pathTo(stack, index, name, "canary");
  const whole = field === "version" ? edit(edited, canaryAt, null) : edited;
  if (whole === undefined)
    throw refused(
      `${file}: the canary of ${name} cannot be removed: remove it there yourself, then run the same command again`,
    );
  // Refuses an invalid result.
  parseOnCluster(stack, whole);
  return before === value && whole !== text
    ? { text: whole, key: keyPath(canaryAt.slice(1)), before: app.canary ?? null, after: null }
    : { text: whole, key, before, after: value };
}

const edit = (text: string, path: YamlPath, value: Value): string | undefined =>
  value === null ? removeFromYaml(text, path) : setInYaml(text, path, value);

type Field = "replicas" | "version" | "canary";

/** The path of an app's replicas or version in a stack file. */
function pathTo(stack: string, index: number, name: string, field: Field): YamlPath {
  if (programOf(stack) === "apps") return ["config", "k3s-lab:apps", index, field];
  return field === "replicas" ? ["config", "k3s-lab:replicas", name] : ["config", `k3s-lab:${field}`];
}

/**
 * Changes one value of an app in its stack file, atomically.
 * @param directory the folder of the stack files. Default: the checkout.
 * @returns the change, and a function that restores the file unless it was edited since and returns whether it did.
 * @throws LabError (exit code 2); the file is then unchanged.
 */
export async function changeStackFile(
  stack: string,
  app: Pick<App, "name" | "namespace">,
  change: AppChange,
  directory: string = root,
): Promise<FileChange & { readonly putBack: () => Promise<boolean> }> {
  // Keep a symbolic link a link.
  const file = await realpath(join(directory, stackFile(stack)));
  const before = await readFile(file, "utf8");
  const { text, ...done } = withChange(stack, before, app, change);
  const mode = (await stat(file)).mode & 0o777;
  const put = async (from: string, to: string): Promise<boolean> => {
    if (from === to || (await readFile(file, "utf8")) !== from) return false;
    await writeWhole(file, to, { mode });
    return true;
  };
  if (text !== before && !(await put(before, text)))
    throw refused(`${stackFile(stack)} was edited at the same time. Run the same command again`);
  return { ...done, putBack: () => put(text, before) };
}

const refused = (message: string): LabError => refusal(`${message}.`);
