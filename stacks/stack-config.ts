import * as pulumi from "@pulumi/pulumi";
import { type Configs, type ProgramName, parseConfig, stackFile } from "./config.ts";

/**
 * The checked configuration of the stack that is running, as Pulumi hands it over:
 * `Pulumi.<stack>.yaml` and whatever `--config` adds.
 */
export function stackConfig<Program extends ProgramName>(program: Program): Configs[Program] {
  const prefix = `${pulumi.getProject()}:`;
  const own = Object.entries(pulumi.runtime.allConfig()).filter(([key]) => key.startsWith(prefix));
  const values = own.map(([key, text]) => [key.slice(prefix.length), fromText(text)] as const);
  return parseConfig(program, Object.fromEntries(values), stackFile(pulumi.getStack()));
}

/** Pulumi hands structured values over as JSON text and plain ones as they are. */
function fromText(text: string): unknown {
  if (!/^[[{]/.test(text)) return text;
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}
