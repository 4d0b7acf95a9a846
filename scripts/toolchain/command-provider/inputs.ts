import { reveal, type WireObject } from "./values.ts";

/** The version of the real plugin that this one stands in for. */
export const version = "1.2.1";

/** The supported inputs of `command:local:Command`. */
export const inputNames: readonly string[] = [
  ...["stdin", "logging", "environment", "addPreviousOutputInEnv"],
  ...["create", "update", "delete", "triggers"],
];

export interface Execution {
  /** The process's standard input. Default: none. */
  readonly stdin?: string;
  /** Which streams the engine shows while the command runs. Default: `stdoutAndStderr`. */
  readonly logging?: string;
  /** Added to the engine's own environment. */
  readonly environment?: Readonly<Record<string, string>>;
}

/** Inputs with which the real plugin would run a command differently. */
const refused = ["interpreter", "dir", "assetPaths", "archivePaths"];

/** The message for a feature that only the real plugin has. */
export const notSupported = (what: string): string =>
  `${what} is not supported by K3s Lab's stand-in for the command plugin; use command.local.Command with ` +
  `${inputNames.toSorted().join(", ")}, or the real plugin where GitHub can be reached: LAB_TOOLS_WAY=release scripts/lab up`;

export interface Failure {
  readonly property: string;
  readonly reason: string;
}

/** The unsupported inputs. By default, the real plugin passes the previous run's output to a command. */
export function checkInputs(inputs: WireObject): readonly Failure[] {
  const lacking = Object.keys(inputs).filter((key) => !key.startsWith("__") && !inputNames.includes(key));
  const failures = lacking.map((key) => ({ property: key, reason: notSupported(`"${key}"`) }));
  const property = "addPreviousOutputInEnv";
  return inputs[property] === false
    ? failures
    : [...failures, { property, reason: notSupported(`"${property}" other than false`) }];
}

export function text(properties: WireObject, key: string): string | undefined {
  const value = reveal(properties[key] ?? null);
  return typeof value === "string" ? value : undefined;
}

/**
 * How to run a command, from its inputs or from a state.
 * @throws Error for an unsupported input: the real plugin may have written the state.
 */
export function executionOf(properties: WireObject): Execution {
  const lacking = refused.find((key) => (properties[key] ?? null) !== null);
  if (lacking !== undefined) throw new Error(notSupported(`"${lacking}"`));
  const { stdin, logging, environment } = reveal(properties) as Execution;
  return {
    ...(stdin ? { stdin } : {}),
    ...(logging ? { logging } : {}),
    ...(environment ? { environment } : {}),
  };
}
