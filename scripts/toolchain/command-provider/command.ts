import { randomBytes } from "node:crypto";
import { type Change, diffInputs, rootOf } from "./diff.ts";
import type { Outputs } from "./environment.ts";
import { commandShapes, text } from "./inputs.ts";
import type { RunResult } from "./run.ts";
import { unknown, type WireObject } from "./values.ts";

/** Runs a command as `properties` say; supplied by the provider. */
export type Runner = (command: string, properties: WireObject, previous: Outputs) => Promise<RunResult>;

/** One property that differs. */
export interface PropertyChange {
  readonly path: string;
  readonly change: Change;
  /** Only triggers replace; every other change runs `update`, or `create` where there is none. */
  readonly isReplace: boolean;
}

/**
 * What differs between a resource and its new inputs.
 *
 * @param oldInputs Default: what the old state holds of them, for engines that do not send them.
 */
export function diffCommand(
  state: WireObject,
  news: WireObject,
  oldInputs: WireObject = inputsOf(state),
): readonly PropertyChange[] {
  return [...diffInputs(oldInputs, news)].map(([path, change]) => ({
    path,
    change,
    isReplace: rootOf(path) === "triggers",
  }));
}

/** The state of a resource that a preview is about to create. */
export function previewCreate(inputs: WireObject): WireObject {
  return { ...inputsOf(inputs), ...unknownOutputs(inputs) };
}

/** Runs `create` where there is one. */
export async function create(inputs: WireObject, run: Runner): Promise<WireObject> {
  return { ...inputsOf(inputs), ...(await runIfAny(text(inputs, "create"), inputs, {}, run)) };
}

/** The state of a resource that a preview is about to update: what a run makes is not known when any input changed. */
export function previewUpdate(state: WireObject, inputs: WireObject): WireObject {
  const isChanged = diffCommand(state, inputs).length > 0;
  return { ...inputsOf(inputs), ...outputsOf(state), ...(isChanged && unknownOutputs(inputs)) };
}

/** Runs `update`, or else `create`; where there is neither, the outputs stay. */
export async function update(state: WireObject, inputs: WireObject, run: Runner): Promise<WireObject> {
  const command = text(inputs, "update") ?? text(inputs, "create");
  return { ...inputsOf(inputs), ...(await runIfAny(command, inputs, state, run)) };
}

/** Runs the `delete` that the state recorded. */
export async function remove(state: WireObject, run: Runner): Promise<void> {
  await runIfAny(text(state, "delete"), state, state, run);
}

/** A new resource's id: its name with eight random hexadecimal digits. */
export function newId(urn: string): string {
  return (urn.split("::").at(-1) ?? "") + randomBytes(4).toString("hex");
}

/** What a run left, as properties. */
export function resultProperties({ stdout, stderr, assets, archive }: RunResult): WireObject {
  return { stdout, stderr, ...(assets && { assets }), ...(archive && { archive }) };
}

async function runIfAny(
  command: string | undefined,
  properties: WireObject,
  state: WireObject,
  run: Runner,
): Promise<WireObject> {
  const previous = { stdout: text(state, "stdout") ?? "", stderr: text(state, "stderr") ?? "" };
  const kept = { ...previous, ...outputsOf(state) };
  if (command === undefined) return kept;
  return { ...kept, ...resultProperties(await run(command, properties, previous)) };
}

function pick(properties: WireObject, keys: readonly string[]): WireObject {
  return Object.fromEntries(
    keys.flatMap((key) => {
      const value = properties[key];
      return value === undefined || value === null ? [] : [[key, value]];
    }),
  );
}

function inputsOf(properties: WireObject): WireObject {
  return pick(properties, Object.keys(commandShapes));
}

function outputsOf(state: WireObject): WireObject {
  return pick(state, ["stdout", "stderr", "assets", "archive"]);
}

function unknownOutputs(inputs: WireObject): WireObject {
  return {
    stdout: unknown,
    stderr: unknown,
    ...("assetPaths" in inputs && { assets: unknown }),
    ...("archivePaths" in inputs && { archive: unknown }),
  };
}
