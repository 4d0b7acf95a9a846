import { randomBytes } from "node:crypto";
import { isDeepStrictEqual } from "node:util";
import { inputNames, text } from "./inputs.ts";
import type { Outputs } from "./run.ts";
import { unknown, type WireObject } from "./values.ts";

/** Runs a command with the settings in `properties`; supplied by the provider. */
export type Runner = (command: string, properties: WireObject) => Promise<Outputs>;

/**
 * The names of the inputs that differ; null counts as absent. A change of `triggers` replaces, any other runs `update`, or
 * `create` where there is none.
 * @param oldInputs Default: those in the old state, for engines that do not send them.
 */
export function changedInputs(
  state: WireObject,
  news: WireObject,
  oldInputs: WireObject = inputsOf(state),
): readonly string[] {
  const names = new Set([...Object.keys(oldInputs), ...Object.keys(news)]);
  return [...names].filter(
    // The engine's own.
    (name) =>
      name !== "version" &&
      !name.startsWith("__") &&
      !isDeepStrictEqual(oldInputs[name] ?? null, news[name] ?? null),
  );
}

export function previewCreate(inputs: WireObject): WireObject {
  return { ...inputsOf(inputs), stdout: unknown, stderr: unknown };
}

export async function create(inputs: WireObject, run: Runner): Promise<WireObject> {
  return { ...inputsOf(inputs), ...(await runIfAny(text(inputs, "create"), inputs, {}, run)) };
}

/** The state that an update would leave, for a preview: if any input changed, the outputs are unknown. */
export function previewUpdate(state: WireObject, inputs: WireObject): WireObject {
  return changedInputs(state, inputs).length > 0
    ? previewCreate(inputs)
    : { ...inputsOf(inputs), ...pick(state, outputs) };
}

/** Runs `update`, or else `create`; with neither, keeps the outputs. */
export async function update(state: WireObject, inputs: WireObject, run: Runner): Promise<WireObject> {
  const command = text(inputs, "update") ?? text(inputs, "create");
  return { ...inputsOf(inputs), ...(await runIfAny(command, inputs, state, run)) };
}

export async function remove(state: WireObject, run: Runner): Promise<void> {
  await runIfAny(text(state, "delete"), state, state, run);
}

/** The id of a new resource: its name and eight random hexadecimal digits. */
export function newId(urn: string): string {
  return (urn.split("::").at(-1) ?? "") + randomBytes(4).toString("hex");
}

const outputs = ["stdout", "stderr"];

async function runIfAny(
  command: string | undefined,
  properties: WireObject,
  state: WireObject,
  run: Runner,
): Promise<WireObject> {
  if (command === undefined) return { stdout: "", stderr: "", ...pick(state, outputs) };
  return { ...(await run(command, properties)) };
}

const inputsOf = (properties: WireObject): WireObject => pick(properties, inputNames);

function pick(properties: WireObject, keys: readonly string[]): WireObject {
  return Object.fromEntries(
    keys.flatMap((key) => {
      const value = properties[key];
      return value === undefined || value === null ? [] : [[key, value]];
    }),
  );
}
