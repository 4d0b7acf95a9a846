import { z } from "zod";

export interface JsonSchema {
  readonly [keyword: string]: unknown;
  readonly type?: string | readonly string[];
  readonly description?: string;
  readonly default?: unknown;
  readonly enum?: readonly unknown[];
  readonly const?: unknown;
  readonly minimum?: number;
  readonly maximum?: number;
  readonly properties?: Readonly<Record<string, JsonSchema>>;
  readonly required?: readonly string[];
  readonly items?: JsonSchema;
  readonly anyOf?: readonly JsonSchema[];
  readonly not?: JsonSchema;
}

/** The schema of a file before defaults are filled in. The descriptions state what only code can check. */
export const jsonSchemaOf = (schema: z.ZodType): JsonSchema =>
  z.toJSONSchema(schema, { io: "input", unrepresentable: "any" }) as JsonSchema;

/** The schema of a whole stack file: the project's prefixed keys under `config`. */
export function stackFileSchema(title: string, schema: JsonSchema): JsonSchema {
  const { $schema, properties = {}, required = [], ...rest } = schema;
  const prefixed = (name: string) => `k3s-lab:${name}`;
  const ofPulumi = { description: "Written by Pulumi." };
  return {
    $schema,
    title,
    type: "object",
    properties: {
      config: {
        ...rest,
        properties: Object.fromEntries(
          Object.entries(properties).map(([name, one]) => [prefixed(name), one]),
        ),
        patternProperties: { "^pulumi:": {} },
        required: required.map(prefixed),
      },
      encryptionsalt: ofPulumi,
    },
    required: ["config"],
    additionalProperties: false,
  };
}
