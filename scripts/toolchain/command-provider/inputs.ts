import { hasUnknown, isArray, isPlainObject, reveal, unknown, type Wire, type WireObject } from "./values.ts";

/** The version of the real plugin whose behaviour this one follows. */
export const version = "1.2.1";

/** What a command runs with. */
export interface Execution {
  /** Given to the process as standard input. Default: none. */
  readonly stdin?: string;
  /** Which streams the engine shows while the command runs. Default: `stdoutAndStderr`. */
  readonly logging?: string;
  /** Variables added to those of the engine. */
  readonly environment?: Readonly<Record<string, string>>;
  /** Give the output of the run before as PULUMI_COMMAND_STDOUT and PULUMI_COMMAND_STDERR. Default: true. */
  readonly addPreviousOutputInEnv?: boolean;
}

type Shape = "string" | "boolean" | "array" | "variables";

const executionShapes = {
  stdin: "string",
  logging: "string",
  environment: "variables",
  addPreviousOutputInEnv: "boolean",
} as const satisfies Record<keyof Execution, Shape>;

const shapes: Readonly<Record<string, Shape>> = {
  ...executionShapes,
  create: "string",
  update: "string",
  delete: "string",
  triggers: "array",
};

/** The inputs of `command:local:Command` that are carried. */
export const inputNames: readonly string[] = Object.keys(shapes);

/** Inputs of the real plugin that would make a command do something else than it does here. */
const refused = ["interpreter", "dir", "assetPaths", "archivePaths"];

/** Why something that the real plugin has is not here. */
export const notCarried = (what: string): string =>
  `${what} is not supported by K3s Lab's stand-in for the command plugin; use command.local.Command with ` +
  `${inputNames.toSorted().join(", ")}, or the real plugin where GitHub can be reached: LAB_TOOLS_WAY=release scripts/lab up`;

/** Why the engine must not go on with these inputs. */
export interface Failure {
  /** Path of the property, such as `environment.PORT`. */
  readonly property: string;
  readonly reason: string;
}

/** Everything wrong with the inputs. Values that are not known yet are taken as right. */
export function checkInputs(inputs: WireObject): readonly Failure[] {
  return Object.entries(inputs).flatMap(([key, value]) => {
    if (key.startsWith("__")) return [];
    const shape = Object.hasOwn(shapes, key) ? shapes[key] : undefined;
    return shape
      ? checkShape(key, reveal(value), shape)
      : [{ property: key, reason: notCarried(`"${key}"`) }];
  });
}

function checkShape(property: string, value: Wire, shape: Shape): readonly Failure[] {
  if (value === null || value === unknown) return [];
  if (shape === "variables" && isPlainObject(value))
    return Object.entries(value).flatMap(([name, item]) => checkShape(`${property}.${name}`, item, "string"));
  if (shape === "array" ? isArray(value) : typeof value === shape) return [];
  const wanted = shape === "variables" ? "object of strings" : shape;
  return [{ property, reason: `expected ${/^[ao]/.test(wanted) ? "an" : "a"} ${wanted}` }];
}

/** The string under `key`, or undefined where there is none. */
export function text(properties: WireObject, key: string): string | undefined {
  const value = reveal(properties[key] ?? null);
  return typeof value === "string" ? value : undefined;
}

/**
 * How to run a command, out of its inputs or of a state.
 *
 * @throws Error when a value is not known yet, of another shape, or of an input that is not carried: the real plugin may
 * have written the state.
 */
export function executionOf(properties: WireObject): Execution {
  const lacking = refused.find((key) => (properties[key] ?? null) !== null);
  if (lacking !== undefined) throw new Error(notCarried(`"${lacking}"`));
  const known: Record<string, Wire> = {};
  for (const [key, shape] of Object.entries(executionShapes)) {
    const value = properties[key];
    if (value === undefined || value === null) continue;
    if (hasUnknown(value)) throw new Error(`"${key}" is not known yet, so the command cannot run`);
    const plain = reveal(value);
    const [wrong] = checkShape(key, plain, shape);
    if (wrong) throw new Error(`"${wrong.property}" cannot be used: ${wrong.reason}`);
    known[key] = plain;
  }
  // Each value has just been checked against the shape that `Execution` declares for its key.
  return known as Execution;
}
