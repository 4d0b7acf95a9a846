import type { JsonSchema } from "./json-schema.ts";

/** A Markdown table of all keys of a schema, including nested ones. @param prefix of each key. Default: none. */
export function configurationTable(schema: JsonSchema, prefix = ""): string {
  return ["| key | value | default | meaning |", "|---|---|---|---|", ...rows(schema, prefix)].join("\n");
}

function rows({ properties = {}, required = [] }: JsonSchema, prefix: string): string[] {
  return Object.entries(properties).flatMap(([name, one]) => {
    const key = `${prefix}${name}`;
    const [, meaning = "", stated] = /^(.*?)(?: ?Default: (.*)\.)?$/s.exec(one.description ?? "") ?? [];
    const given =
      one.default === undefined ? stated : `\`${JSON.stringify(one.default).replaceAll('"', "")}\``;
    const isEmpty = one.default !== undefined && /^(\[\]|\{\})$/.test(JSON.stringify(one.default));
    const preset = required.includes(name) ? "required" : isEmpty ? "none" : (given ?? "none");
    const row = `| \`${key}\` | ${acceptedBy(one)} | ${preset} | ${meaning} |`;
    const inner = one.items?.properties ? rows(one.items, `${key}[].`) : rows(one, `${key}.`);
    const ways = (one.anyOf ?? []).flatMap((way) => rows(way, `${key}.`));
    return [row, ...inner, ...ways];
  });
}

function acceptedBy(schema: JsonSchema): string {
  const { type, items, anyOf, minimum, maximum } = schema;
  if (schema.not) return "not accepted";
  if (schema.const !== undefined) return `\`${schema.const}\``;
  if (schema.enum) return schema.enum.map((one) => `\`${one}\``).join(", ");
  if (anyOf) return anyOf.map(acceptedBy).filter(unique).join(" or ");
  if (items) return items.properties ? "list" : `list of ${plural(acceptedBy(items))}`;
  if (type === "object") return "mapping";
  if (type === "integer") return minimum === undefined ? "integer" : `integer, ${minimum} to ${maximum}`;
  if (typeof type === "string") return type;
  return (type ?? ["any"]).join(" or ");
}

const unique = (text: string, index: number, all: readonly string[]): boolean => all.indexOf(text) === index;
const plural = (text: string): string => (text === "string" ? "strings" : text);
