import { readFile } from "node:fs/promises";
import { resolve } from "node:path";
import {
  type Document,
  isAlias,
  isCollection,
  isPair,
  isScalar,
  isSeq,
  LineCounter,
  type Node,
  type Pair,
  parseAllDocuments,
  Scalar,
  visit,
} from "yaml";
import { LabError } from "../lib/errors.ts";

/**
 * A stack file has three readers: Pulumi (Go, mostly YAML 1.1), Vagrant (Ruby, YAML 1.1) and the lab (npm, YAML 1.2). What
 * they do not read alike is refused here and in the Vagrantfile's `stack_config`, by the same rules:
 * one document of UTF-8, text on one line, no anchors, aliases, merge keys, tags or directives, keys that are text and
 * occur once, and no plain value that one reader takes for a number, a date or a truth value and another for text.
 */
const longest = 1 << 20;
const deepest = 20;
const tooDeep = `nested too deeply; expected at most ${deepest} levels`;

/** Control characters, tabs, and the line breaks that only YAML 1.1 knows. */
const strange =
  /[^\n\r\u0020-\u007e\u00a0-\u2027\u202a-\ud7ff\ue000-\ufefe\uff00-\ufffd\u{10000}-\u{10ffff}]|\r(?!\n)/u;

/** A decimal number, a truth value, an address or a version such as 1.0.0. */
const agreed = [
  /^(0|-?[1-9]\d{0,14}|(0|[1-9]\d{0,8})\.\d{1,6})$/,
  /^(true|True|TRUE|false|False|FALSE)$/,
  /^\d+(\.\d+){2,}[-+\w.:/]*$/,
];
/** Other numbers (octal, hexadecimal, to the base of 60), dates, truth values; and text that Go ends early in a flow. */
const disputed = [
  /^[-+]?(0[xob])?[-+\d_,.e]*$/i,
  /^[-+]?\d[\d_,]*(:[0-5]?\d)+(\.[\d_]*)?$/,
  /^[-+]?0x[\da-f_,]*$/i,
  /^[-+]?\.(inf|nan)$/i,
  /^-?\d{4}-\d{1,2}-\d{1,2}[Tt\s]/,
  /^(y|n|yes|no|on|off|true|false|null|~)$/i,
  /\?/,
];

/** Whether every reader takes a plain value for the same. */
const isPlain = (text: string): boolean =>
  agreed.some((one) => one.test(text)) ||
  (/^[A-Za-z0-9_/~.-]/.test(text) && !disputed.some((one) => one.test(text)));

export interface PlainYamlOptions {
  /** How many lines a text may have. Default: one. */
  readonly lines?: "one" | "several";
}

/**
 * Reads a YAML file in the way that all its readers agree on.
 * @param path relative to the directory.
 * @param hint what to do where there is no such file, a whole sentence.
 * @returns null for a file without content.
 * @throws LabError (exit code 2) that names the file, the line, and what is accepted instead.
 */
export async function readPlainYaml(
  path: string,
  directory: string,
  hint: string,
  options: PlainYamlOptions = {},
): Promise<unknown> {
  let bytes: Uint8Array;
  try {
    bytes = await readFile(resolve(directory, path));
  } catch (cause) {
    const { code, message } = cause as NodeJS.ErrnoException;
    const reason = code === "ENOENT" ? "it does not exist" : code === "EISDIR" ? "it is a folder" : message;
    throw new LabError(`${path} cannot be read: ${reason}. ${hint}`, { cause, exitCode: 2 });
  }
  return parsePlainYaml(bytes, path, options);
}

/** As `readPlainYaml`, from the content of a file. */
export function parsePlainYaml(
  bytes: Uint8Array,
  file: string,
  { lines = "one" }: PlainYamlOptions = {},
): unknown {
  const refuse: Refuse = (line, what, cause) => {
    throw new LabError(`${file}${line === undefined ? "" : `, line ${line}`}: ${what}.`, {
      cause,
      exitCode: 2,
    });
  };
  const text = decode(bytes, refuse);
  const counter = new LineCounter();
  const document = onlyDocument(text, counter, refuse);
  if (!document?.contents || (isScalar(document.contents) && document.contents.value === null)) return null;
  const lineOf = (node: Node): number => counter.linePos(node.range?.[0] ?? 0).line;
  const refuseAt = (node: Node, chain: Chain, what: string): never => {
    const key = keyPath(chain).replace(/^config\.(?=k3s-lab:)/, "");
    return refuse(lineOf(node), key === "" ? what : `${key}: ${what}`);
  };
  visit(document, {
    Pair: (_, pair, ancestors) => {
      // As in `{a, b}`; a key with its colon has a node of its own for nothing.
      if (pair.value === null && isScalar(pair.key))
        refuseAt(pair.key, [...ancestors, pair], "no value; expected one");
    },
    Node: (key, node, ancestors) => {
      const chain = key === "key" ? ancestors.slice(0, -1) : [...ancestors, node];
      if (ancestors.filter(isCollection).length > deepest) refuse(lineOf(node), tooDeep);
      const fault =
        nodeFault(node) ??
        (isScalar(node) ? scalarFault(node, text, key === "key", lines) : undefined) ??
        (key === "key" && !isScalar(node) ? "a key that is not text; expected a name" : undefined);
      if (fault) refuseAt(node, chain, fault);
    },
  });
  return document.toJS();
}

/** Ends with a LabError (exit code 2) about a line, or about the whole file. */
type Refuse = (line: number | undefined, what: string, cause?: unknown) => never;

/** The file's text, where it has nothing that only some readers of YAML know. */
function decode(bytes: Uint8Array, refuse: Refuse): string {
  if (bytes.length > longest) refuse(undefined, `${bytes.length} bytes; expected at most ${longest}`);
  let text: string;
  try {
    text = new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch (cause) {
    return refuse(undefined, "not UTF-8; expected a YAML file in UTF-8", cause);
  }
  const lineAt = (offset: number) => text.slice(0, offset).split("\n").length;
  const odd = strange.exec(text);
  if (odd)
    refuse(
      lineAt(odd.index),
      `the character ${nameOf(odd[0])}; expected spaces, line feeds and printable text`,
    );
  const directive = /^%.*/m.exec(text);
  if (directive)
    refuse(lineAt(directive.index), `the directive ${directive[0]}; expected YAML without directives`);
  return text;
}

function onlyDocument(text: string, lineCounter: LineCounter, refuse: Refuse): Document | undefined {
  let documents: readonly Document[] = [];
  try {
    const parsed = parseAllDocuments(text, {
      lineCounter,
      prettyErrors: false,
      schema: "core",
      merge: false,
    });
    documents = Array.isArray(parsed) ? parsed : [];
  } catch (cause) {
    refuse(undefined, tooDeep, cause);
  }
  for (const { errors, warnings } of documents)
    for (const { message, pos } of [...errors, ...warnings])
      refuse(lineCounter.linePos(pos[0]).line, explain(message));
  const [document, second] = documents;
  if (second)
    refuse(
      lineCounter.linePos(second.range?.[0] ?? 0).line,
      "a second document; expected only one, without ---",
    );
  return document;
}

/** What some readers of YAML would take a scalar for, and others not. */
function scalarFault(
  { range, type, value }: Scalar,
  text: string,
  isKey: boolean,
  lines: "one" | "several",
): string | undefined {
  const written = text.slice(range?.[0] ?? 0, range?.[1] ?? 0);
  const isBlock = type === Scalar.BLOCK_FOLDED || type === Scalar.BLOCK_LITERAL;
  if (lines === "one" && (isBlock || written.includes("\n")))
    return "text on several lines; expected it on one";
  if (type !== Scalar.PLAIN) return undefined;
  if (written === "<<") return "the merge key <<; expected the values written out";
  if (written === "" || /^(~|null)$/i.test(written)) return "no value; expected one, or leave the key out";
  if (isKey && typeof value !== "string") return `the key ${written} is not text; expected a name`;
  return isPlain(written)
    ? undefined
    : `Pulumi, Vagrant and the lab would read ${written} differently; expected a decimal number, true, false, or text in quotes`;
}

/** What a node has that some readers of YAML understand in another way. */
function nodeFault(node: Node): string | undefined {
  if (isAlias(node)) return `the alias *${node.source}; expected the value written out`;
  if ("anchor" in node && node.anchor) return `the anchor &${node.anchor}; expected a value without one`;
  if ("tag" in node && node.tag)
    return `the tag ${node.tag}; expected a value without one; put text in quotes`;
  return undefined;
}

/** From the document down to a node. */
type Chain = readonly (Document | Node | Pair)[];

/** Where the last one of a chain is, such as `config.k3s-lab:machines[0].ip`. */
function keyPath(chain: Chain): string {
  return chain.reduce((path, one, index) => {
    if (isPair(one)) return `${path}${path ? "." : ""}${isScalar(one.key) ? one.key.value : "?"}`;
    const next = chain[index + 1];
    return isSeq(one) && next ? `${path}[${one.items.indexOf(next)}]` : path;
  }, "");
}

function nameOf(character: string): string {
  const known: Record<string, string> = { "\t": "tab", "\r": "carriage return", "\0": "NUL" };
  const code = (character.codePointAt(0) ?? 0).toString(16).toUpperCase().padStart(4, "0");
  return known[character] ?? `U+${code}`;
}

/** The parser's words, without the position that stands in front. */
const explain = (message: string): string => {
  const [first = ""] = message.split("\n");
  if (/call stack/.test(first)) return tooDeep;
  return /unique/.test(first)
    ? "a duplicate key; expected each key once"
    : `not YAML: ${first.replace(/[.:]$/, "")}`;
};
