import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { root } from "../../stacks/lib/paths.ts";
import { schemas } from "../../stacks/model/config.ts";
import { k3dFileSchema } from "../../stacks/model/k3d-schema.ts";
import { commandLine } from "../command-line.ts";
import { exerciseSchema, specSchema } from "../exercise/model.ts";
import { cliReference } from "./cli.ts";
import { configurationTable } from "./configuration.ts";
import { jsonSchemaOf, stackFileSchema } from "./json-schema.ts";

const begin = (name: string): string => `<!-- begin generated: ${name} (npm run generate) -->`;
const end = "<!-- end generated -->";

/** All files that `npm run generate` writes: path in the checkout, and content. */
export async function documents(): Promise<ReadonlyMap<string, string>> {
  const tables: Record<string, string> = { cli: cliReference(await commandLine()) };
  const files = new Map<string, string>();
  for (const [program, schema] of Object.entries(schemas)) {
    const json = jsonSchemaOf(schema);
    tables[program] = configurationTable(json, "k3s-lab:");
    files.set(`schemas/${program}.schema.json`, pretty(stackFileSchema(`Pulumi.${program}.yaml`, json)));
  }
  const k3dFile = jsonSchemaOf(k3dFileSchema);
  tables["k3d-file"] = configurationTable(k3dFile);
  files.set("schemas/k3d-file.schema.json", pretty({ title: "k3d config file", ...k3dFile }));
  const exercise = jsonSchemaOf(exerciseSchema);
  tables.exercise = configurationTable(exercise);
  files.set("schemas/exercise.schema.json", pretty({ title: "exercise", ...exercise }));
  files.set("schemas/spec.schema.json", pretty({ title: "spec", ...jsonSchemaOf(specSchema) }));
  for (const file of ["docs/configuration.md", "docs/cli.md", "docs/exercises.md"])
    files.set(file, filledIn(file, await readFile(join(root, file), "utf8"), tables));
  return files;
}

const pretty = (value: unknown): string => `${JSON.stringify(value, null, 2)}\n`;

/** Replaces the generated parts of a document; keeps the prose between them. */
function filledIn(file: string, text: string, parts: Readonly<Record<string, string>>): string {
  return text.replaceAll(
    /<!-- begin generated: ([\w-]+) .*?-->.*?<!-- end generated -->/gs,
    (_, name: string) => {
      const part = parts[name];
      if (part === undefined) throw new Error(`${file}: there is no generated part "${name}".`);
      return `${begin(name)}\n\n${part}\n\n${end}`;
    },
  );
}
