import { isArray, isPlainObject, isSame, type Wire, type WireObject } from "./values.ts";

/** What happens to one property. */
export type Change = "add" | "update" | "delete";

/** Property paths as the engine writes them, such as `environment.HOME` or `triggers[0]`, with what happens there. */
export type Changes = ReadonlyMap<string, Change>;

/**
 * What differs between the inputs of two runs, down to the single variable or array element.
 * A secret is one value: it differs as a whole, so that nothing inside it is shown.
 * Null is the same as absent; `version` and names that begin with `__` belong to the engine and never differ.
 */
export function diffInputs(olds: WireObject, news: WireObject): Changes {
  const changes = new Map<string, Change>();
  diffObjects("", visible(olds), visible(news), changes);
  return changes;
}

/** The property that a path is in: `triggers` for `triggers[0].name`. */
export function rootOf(path: string): string {
  return /^[^.[]+/.exec(path)?.[0] ?? path;
}

function visible(inputs: WireObject): WireObject {
  return Object.fromEntries(
    Object.entries(inputs).filter(([key]) => key !== "version" && !key.startsWith("__")),
  );
}

function diffObjects(path: string, olds: WireObject, news: WireObject, changes: Map<string, Change>): void {
  for (const key of new Set([...Object.keys(olds), ...Object.keys(news)])) {
    diffValues(path + accessor(path, key), olds[key], news[key], changes);
  }
}

function diffValues(
  path: string,
  before: Wire | undefined,
  after: Wire | undefined,
  changes: Map<string, Change>,
): void {
  const isBefore = before !== undefined && before !== null;
  const isAfter = after !== undefined && after !== null;
  if (!isBefore && !isAfter) return;
  if (!isBefore) {
    changes.set(path, "add");
  } else if (!isAfter) {
    changes.set(path, "delete");
  } else if (isArray(before) && isArray(after)) {
    for (let i = 0; i < Math.max(before.length, after.length); i++) {
      diffValues(`${path}[${i}]`, before[i], after[i], changes);
    }
  } else if (isPlainObject(before) && isPlainObject(after)) {
    diffObjects(path, before, after, changes);
  } else if (!isSame(before, after)) {
    changes.set(path, "update");
  }
}

function accessor(path: string, key: string): string {
  if (/^[A-Za-z_$][\w$]*$/.test(key)) return path === "" ? key : `.${key}`;
  return `["${key.replaceAll('"', '\\"')}"]`;
}
