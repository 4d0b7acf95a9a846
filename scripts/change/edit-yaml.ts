import { isDeepStrictEqual } from "node:util";
import {
  isCollection,
  isMap,
  isScalar,
  type ParsedNode,
  parseDocument,
  type Range,
  type YAMLMap,
} from "yaml";

/** Where a value is in a YAML document: names of keys and numbers of items. */
export type YamlPath = readonly (string | number)[];

/**
 * Sets one value in the text of a YAML file. Everything else, comments and layout included, is preserved: only the
 * characters of the value change, or a missing key is added.
 *
 * @param text a document without errors.
 * @returns undefined if that would change another value too, such as through an alias.
 */
export function setInYaml(text: string, path: YamlPath, value: string | number): string | undefined {
  const document = parseDocument(text);
  const edit = editOf(text, document.contents, path, value);
  if (edit === undefined) return undefined;
  const edited = `${text.slice(0, edit.from)}${edit.text}${text.slice(edit.to)}`;
  const after = parseDocument(edited);
  // The same values without aliases, so that only this one changes.
  const wanted = parseDocument(JSON.stringify(document.toJS()));
  wanted.setIn(path, value);
  return after.errors.length === 0 && isDeepStrictEqual(after.toJS(), wanted.toJS()) ? edited : undefined;
}

/**
 * Removes a key from the text of a YAML file, with the rest of its line; everything else is preserved.
 * @returns undefined if that would change another value; the unchanged text if there is no such key.
 */
export function removeFromYaml(text: string, path: YamlPath): string | undefined {
  const document = parseDocument(text);
  const map = document.getIn(path.slice(0, -1));
  const index = isMap(map)
    ? map.items.findIndex(({ key }) => isScalar(key) && key.value === path.at(-1))
    : -1;
  const [pair, before, after] = isMap(map) ? [index, index - 1, index + 1].map((at) => map.items[at]) : [];
  if (!isMap(map) || pair === undefined) return text;
  const [start, end] = [rangeOf(pair.key)?.[0], rangeOf(pair.value)?.[1]];
  if (start === undefined || end === undefined) return undefined;
  const edited = (from: number, to: number) => `${text.slice(0, from)}${text.slice(to)}`;
  const removed = map.flow
    ? before
      ? edited(rangeOf(before.value)?.[1] ?? start, end)
      : edited(start, rangeOf(after?.key)?.[0] ?? end)
    : edited(text.lastIndexOf("\n", start) + 1, text.indexOf("\n", end) + 1 || text.length);
  const wanted = parseDocument(JSON.stringify(document.toJS()));
  wanted.deleteIn(path);
  try {
    // An alias to a removed anchor has no value.
    const now = parseDocument(removed);
    return now.errors.length === 0 && isDeepStrictEqual(now.toJS(), wanted.toJS()) ? removed : undefined;
  } catch {
    return undefined;
  }
}

/** A range of a text and its replacement. */
interface Edit {
  readonly from: number;
  readonly to: number;
  readonly text: string;
}

function editOf(
  text: string,
  contents: ParsedNode | null,
  path: YamlPath,
  value: string | number,
): Edit | undefined {
  let node: unknown = contents;
  for (const [index, part] of path.entries()) {
    if (!isCollection(node)) return undefined;
    const next = node.get(part, true);
    if (next === undefined) return isMap(node) ? addition(text, node, path.slice(index), value) : undefined;
    node = next;
  }
  const range = rangeOf(node);
  if (!isScalar(node) || range === undefined) return undefined;
  // An empty value has no characters of its own.
  if (range[0] === range[1]) return { from: range[0], to: range[0], text: ` ${written(value)}` };
  return { from: range[0], to: range[1], text: written(value, text[range[0]]) };
}

/** Where a node begins in the text, where its value ends, and where the node ends. */
const rangeOf = (node: unknown): Range | undefined =>
  (node as { readonly range?: Range | null } | null)?.range ?? undefined;

/** An edit that adds a key after a mapping's last one. */
function addition(text: string, map: YAMLMap, path: YamlPath, value: string | number): Edit | undefined {
  const entry = entryOf(path, value);
  const range = rangeOf(map);
  const last = map.items.at(-1);
  if (!range) return undefined;
  if (last === undefined) return { from: range[0] + 1, to: range[0] + 1, text: entry };
  const end = rangeOf(last.value)?.[1] ?? rangeOf(last.key)?.[1];
  if (end === undefined) return undefined;
  if (map.flow) return { from: end, to: end, text: `, ${entry}` };
  const first = rangeOf(map.items[0]?.key)?.[0];
  if (first === undefined) return undefined;
  const column = first - (text.lastIndexOf("\n", first - 1) + 1);
  const lineEnd = text[end - 1] === "\n" ? end - 1 : text.indexOf("\n", end);
  const at = lineEnd < 0 ? text.length : lineEnd - (text[lineEnd - 1] === "\r" ? 1 : 0);
  const newline = text.includes("\r\n") ? "\r\n" : "\n";
  return { from: at, to: at, text: `${newline}${" ".repeat(column)}${entry}` };
}

/** `a: 1`, or for a longer path `a: {b: 1}`. */
const entryOf = ([first = "", ...rest]: YamlPath, value: string | number): string =>
  `${first}: ${rest.length > 0 ? `{${entryOf(rest, value)}}` : written(value)}`;

/**
 * A value in YAML: a string is unquoted only if no parser reads it as another type.
 * @param before the first character of the previous value, to keep its quotes.
 */
function written(value: string | number, before = ""): string {
  if (typeof value === "number") return String(value);
  if (before === "'" && !value.includes("'")) return `'${value}'`;
  return before !== '"' && /^\d+\.\d+\.\d+([-+.][\w.+-]*)?$/.test(value) ? value : JSON.stringify(value);
}
