import { commandShapes, runShapes } from "./inputs.ts";

/** The version of the real plugin whose behaviour this one follows. */
export const version = "1.2.1";

/** What this is, for people who ask it. */
export const description =
  "K3s Lab's stand-in for pulumi-resource-command 1.2.1, for computers that cannot download that plugin. " +
  "It carries command:local:Command and command:local:run.";

const types: Readonly<Record<string, object>> = {
  string: { type: "string" },
  boolean: { type: "boolean" },
  strings: { type: "array", items: { type: "string" } },
  variables: { type: "object", additionalProperties: { type: "string" } },
  values: { type: "array", items: { $ref: "pulumi.json#/Any" } },
};

const outputs = {
  stdout: {
    type: "string",
    description: "What the command wrote to standard output, without the last newline.",
  },
  stderr: {
    type: "string",
    description: "What the command wrote to standard error, without the last newline.",
  },
  assets: {
    type: "object",
    additionalProperties: { $ref: "pulumi.json#/Asset" },
    description: "The files chosen by assetPaths.",
  },
  archive: { $ref: "pulumi.json#/Archive", description: "The files chosen by archivePaths." },
};

/** The package's schema in Pulumi's JSON form: what this provider really carries. */
export function schema(): string {
  const commandInputs = properties(commandShapes);
  const runInputs = properties(runShapes);
  const triggers = { ...commandInputs.triggers, replaceOnChanges: true };
  return JSON.stringify({
    name: "command",
    version,
    description,
    resources: {
      "command:local:Command": {
        description: "A command of this computer, run when the resource is created, updated and deleted.",
        inputProperties: { ...commandInputs, triggers },
        properties: { ...commandInputs, triggers, ...outputs },
        required: ["stdout", "stderr"],
      },
    },
    functions: {
      "command:local:run": {
        description: "A command of this computer, run at every preview and update.",
        inputs: { type: "object", properties: runInputs, required: ["command"] },
        outputs: {
          type: "object",
          properties: { ...runInputs, ...outputs },
          required: ["command", "stdout", "stderr"],
        },
      },
    },
  });
}

function properties(shapes: Readonly<Record<string, string>>): Readonly<Record<string, object>> {
  return Object.fromEntries(Object.entries(shapes).map(([name, shape]) => [name, types[shape] ?? {}]));
}
