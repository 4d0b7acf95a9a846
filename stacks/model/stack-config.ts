import { isDeepStrictEqual } from "node:util";
import * as pulumi from "@pulumi/pulumi";
import { refusal } from "../lib/errors.ts";
import { type Configs, type ProgramName, parseConfig, stackFile } from "./config.ts";

/** The checked configuration of the running stack as Pulumi passes it: `Pulumi.<stack>.yaml` and whatever `--config` adds. */
export function stackConfig<Program extends ProgramName>(program: Program): Configs[Program] {
  const prefix = `${pulumi.getProject()}:`;
  const own = Object.entries(pulumi.runtime.allConfig()).filter(([key]) => key.startsWith(prefix));
  const values = own.map(([key, text]) => [key.slice(prefix.length), fromText(text)] as const);
  return parseConfig(program, Object.fromEntries(values), stackFile(pulumi.getStack()));
}

/**
 * Refuses a run in which Pulumi's configuration differs from the stack's file: Vagrant and the lab read the file, and would
 * create, verify and take down another stack than Pulumi.
 * @param file the file's content.
 * @throws LabError (exit code 2) that names the keys.
 */
export function refuseOtherValues<Program extends ProgramName>(
  program: Program,
  file: Configs[Program],
): void {
  const told: Readonly<Record<string, unknown>> = { ...stackConfig(program) };
  const written: Readonly<Record<string, unknown>> = { ...file };
  const other = Object.keys({ ...told, ...written }).filter(
    (key) => !isDeepStrictEqual(told[key], written[key]),
  );
  if (other.length === 0) return;
  const name = stackFile(pulumi.getStack());
  throw refusal(
    `Pulumi got a different value from that in ${name} for ${other.map((key) => `k3s-lab:${key}`).join(", ")}. Write it into ${name} instead of passing --config or --config-file; text that Pulumi reads as something else goes in quotes.`,
  );
}

/** Pulumi passes structured values as JSON text and plain ones as they are. */
function fromText(text: string): unknown {
  if (!/^[[{]/.test(text)) return text;
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}
