import { closest } from "fastest-levenshtein";
import { z } from "zod";
import { refusal } from "../lib/errors.ts";
import { withoutSecrets } from "./k3s-flags.ts";

/**
 * Checks values that a person wrote and fills in the defaults.
 * @param file named in every error.
 * @param prefix of each key. Default: none.
 * @throws LabError (exit code 2) that names file, key, value and what is accepted, for every error found.
 */
export function checked<Schema extends z.ZodType>(
  schema: Schema,
  values: unknown,
  file: string,
  prefix = "",
): z.output<Schema> {
  const result = schema.safeParse(values);
  if (result.success) return result.data;
  const faults = result.error.issues
    .flatMap(inBranch)
    .map((issue) => `${file}: ${describe(issue, values, schema, prefix)}`);
  throw refusal(faults.join("\n"));
}

/** For a value that resembles just one of several forms, such as a mapping instead of a number, the errors of that form. */
function inBranch(issue: z.core.$ZodIssue): readonly z.core.$ZodIssue[] {
  if (issue.code !== "invalid_union") return [issue];
  const isOther = ({ code, path }: z.core.$ZodIssue) => code === "invalid_type" && path.length === 0;
  const [branch, ...more] = issue.errors.filter((issues) => !issues.some(isOther));
  if (branch === undefined || more.length > 0) return [issue];
  return branch.map((one) => ({ ...one, path: [...issue.path, ...one.path] }));
}

function describe(issue: z.core.$ZodIssue, values: unknown, schema: z.ZodType, prefix: string): string {
  const key = `${prefix}${keyPath(issue.path)}`;
  if (issue.code === "unrecognized_keys") {
    const known = knownKeys(schema, issue.path);
    return issue.keys
      .map((name) => {
        const where = issue.path.length ? `${key}.${name}` : `${prefix}${name}`;
        return `${where}: unknown key; did you mean "${closest(name, known)}"? Known: ${known.join(", ")}.`;
      })
      .join(" ");
  }
  const value = issue.path.reduce<unknown>(
    (at, part) => (at as Record<PropertyKey, unknown> | undefined)?.[part],
    values,
  );
  const given = value === undefined ? "is missing" : `${shown(value, issue.path.at(-1))} is not accepted`;
  return `${key}: ${given}; expected ${expected(issue)}.`;
}

/**
 * A value as a person may see it: on one line, without secrets. Invisible and look-alike characters are named.
 * @param key its place in the file. Default: none.
 */
export function shown(value: unknown, key: PropertyKey = ""): string {
  const name = String(key);
  const whole = JSON.stringify({ [name]: value }, hidden);
  const text = withoutSecrets(whole.slice(JSON.stringify(name).length + 2, -1));
  const short = text.length > longestShown ? `${text.slice(0, longestShown)}…` : text;
  const strange = [...new Set(short.match(/[^\x20-\x7e…]/gu))].map(codeOf);
  const visible = short.replace(/[\p{C}\p{Z}]/gu, (one) => (one === " " ? one : codeOf(one)));
  return strange.length > 0 ? `${visible} (with ${strange.slice(0, 3).join(", ")})` : visible;
}

const codeOf = (character: string): string =>
  `U+${(character.codePointAt(0) ?? 0).toString(16).toUpperCase().padStart(4, "0")}`;

/** Removes what must not be shown: a file's content and a variable's value may hold a password. */
function hidden(key: string, value: unknown): unknown {
  if (typeof value !== "string") return value;
  if (key === "envVar") return value.replace(/=.*$/s, "=…");
  const isContent = (key === "config" || key === "source") && value.includes("\n");
  return isContent || isSecretKey(key) ? "…" : value;
}

/** Whether the value of a key is a secret. */
export const isSecretKey = (key: string): boolean =>
  /^(token|password|secure)$|secret-key$|access-key$/.test(key);

const longestShown = 200;

export const isRecord = (value: unknown): value is Readonly<Record<string, unknown>> =>
  typeof value === "object" && value !== null && !Array.isArray(value);

/** Zod's names of types, as docs/configuration.md calls them. */
const kinds: Readonly<Record<string, string>> = {
  int: "a whole number",
  number: "a number",
  boolean: "true or false",
  string: "text",
  array: "a list",
  object: "a mapping",
};

function expected(issue: z.core.$ZodIssue): string {
  switch (issue.code) {
    case "invalid_value":
      return `one of: ${issue.values.join(", ")}`;
    case "invalid_type":
      return kinds[issue.expected] ?? `a value of type ${issue.expected}`;
    case "too_small":
      return issue.origin === "array" || !issue.message.startsWith("Too small")
        ? issue.message
        : `at least ${issue.minimum}`;
    case "too_big":
      return `at most ${issue.maximum}`;
    default:
      return issue.message;
  }
}

export function keyPath(path: readonly PropertyKey[]): string {
  return path
    .map((part, index) => (typeof part === "number" ? `[${part}]` : `${index ? "." : ""}${String(part)}`))
    .join("");
}

/** The keys that a schema allows at a path. */
export function knownKeys(schema: z.ZodType, path: readonly PropertyKey[]): string[] {
  let at: unknown = schema;
  for (const part of path) {
    at = unwrap(at);
    at =
      at instanceof z.ZodArray && typeof part === "number"
        ? at.element
        : at instanceof z.ZodObject
          ? at.shape[String(part)]
          : at;
  }
  const object = unwrap(at);
  return object instanceof z.ZodObject ? Object.keys(object.shape) : ["stack", "kubeconfig", "context"];
}

function unwrap(schema: unknown): unknown {
  if (schema instanceof z.ZodPipe) return unwrap(schema.in);
  if (schema instanceof z.ZodUnion) {
    const mappings = schema.options.filter((one) => one instanceof z.ZodObject);
    return mappings.length === 1 ? mappings[0] : schema;
  }
  return schema instanceof z.ZodDefault || schema instanceof z.ZodPrefault || schema instanceof z.ZodOptional
    ? unwrap(schema.unwrap())
    : schema;
}
