import { hasUnknown, isArray, isPlainObject, reveal, unknown, type Wire, type WireObject } from "./values.ts";

/** What a command runs with; common to the resource and the function. */
export interface Execution {
  /** Given to the process as standard input. Default: none. */
  readonly stdin?: string;
  /** Which streams the engine shows while the command runs. Default: `stdoutAndStderr`. */
  readonly logging?: string;
  /** Program and its first arguments; the command comes last. Default: `/bin/sh -c`. */
  readonly interpreter?: readonly string[];
  /** Working directory. Default: that of the Pulumi program. */
  readonly dir?: string;
  /** Variables added to those of the engine. */
  readonly environment?: Readonly<Record<string, string>>;
  /** Globs of files to return as assets. */
  readonly assetPaths?: readonly string[];
  /** Globs of files to return as one archive. */
  readonly archivePaths?: readonly string[];
  /** Give the output of the run before as PULUMI_COMMAND_STDOUT and PULUMI_COMMAND_STDERR. Default: true. */
  readonly addPreviousOutputInEnv?: boolean;
}

type Shape = "string" | "boolean" | "strings" | "variables" | "values";

const executionShapes = {
  stdin: "string",
  logging: "string",
  interpreter: "strings",
  dir: "string",
  environment: "variables",
  assetPaths: "strings",
  archivePaths: "strings",
  addPreviousOutputInEnv: "boolean",
} as const satisfies Record<keyof Execution, Shape>;

type Shapes = Readonly<Record<string, Shape>>;

/** Inputs of `command:local:Command`. */
export const commandShapes: Shapes = {
  ...executionShapes,
  create: "string",
  update: "string",
  delete: "string",
  triggers: "values",
};

/** Inputs of `command:local:run`. */
export const runShapes: Shapes = { ...executionShapes, command: "string" };

/** Why the engine must not go on with these inputs. */
export interface Failure {
  /** Path of the property, such as `environment.PORT`. */
  readonly property: string;
  readonly reason: string;
}

/** Everything wrong with the inputs. Values that are not known yet are taken as right. */
export function checkInputs(inputs: WireObject, shapes: Shapes): readonly Failure[] {
  return Object.entries(inputs).flatMap(([key, value]) => {
    if (key.startsWith("__")) return [];
    const shape = Object.hasOwn(shapes, key) ? shapes[key] : undefined;
    if (shape) return checkShape(key, reveal(value), shape);
    const known = Object.keys(shapes).sort().join(", ");
    return [{ property: key, reason: `unknown property "${key}"; known are ${known}` }];
  });
}

function checkShape(property: string, value: Wire, shape: Shape): readonly Failure[] {
  if (value === null || value === unknown) return [];
  switch (shape) {
    case "string":
    case "boolean":
      return typeof value === shape ? [] : [wrong(property, `a ${shape}`, value)];
    case "values":
      return isArray(value) ? [] : [wrong(property, "an array", value)];
    case "strings":
      if (!isArray(value)) return [wrong(property, "an array of strings", value)];
      return value.flatMap((item, index) => checkShape(`${property}[${index}]`, item, "string"));
    case "variables":
      if (!isPlainObject(value)) return [wrong(property, "an object of strings", value)];
      return Object.entries(value).flatMap(([name, item]) =>
        checkShape(`${property}.${name}`, item, "string"),
      );
  }
}

function wrong(property: string, wanted: string, value: Wire): Failure {
  const got = isArray(value) ? "an array" : typeof value === "object" ? "an object" : `a ${typeof value}`;
  return { property, reason: `expected ${wanted}, got ${got}` };
}

/** The string under `key`, or undefined where there is none. */
export function text(properties: WireObject, key: string): string | undefined {
  const value = reveal(properties[key] ?? null);
  return typeof value === "string" ? value : undefined;
}

/**
 * How to run a command, out of its inputs or of a state that an earlier version wrote: what has another
 * shape than expected is left out.
 *
 * @throws Error when a value is still unknown; the engine never asks for a run with such.
 */
export function executionOf(properties: WireObject): Execution {
  const known: Record<string, Wire> = {};
  for (const [key, shape] of Object.entries(executionShapes)) {
    const value = properties[key];
    if (value === undefined || value === null) continue;
    if (hasUnknown(value)) throw new Error(`"${key}" is not known yet, so the command cannot run`);
    const plain = reveal(value);
    if (checkShape(key, plain, shape).length === 0) known[key] = plain;
  }
  // Each value has just been checked against the shape that `Execution` declares for its key.
  return known as Execution;
}
