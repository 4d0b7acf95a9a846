import { readFile, stat } from "node:fs/promises";
import { resolve } from "node:path";
import { isDeepStrictEqual } from "node:util";
import {
  type Document,
  isAlias,
  isCollection,
  isDocument,
  isPair,
  isScalar,
  isSeq,
  LineCounter,
  type Node,
  type Pair,
  parseDocument,
  type Scalar,
  visit,
} from "yaml";
import { LabError, refusal } from "../lib/errors.ts";
import { isSecretKey } from "./schema.ts";

/** Control characters, tabs, and line breaks that only YAML 1.1 knows. */
const strange =
  /[^\n\r\u0020-\u007e\u00a0-\u2027\u202a-\ud7ff\ue000-\ufefe\uff00-\ufffd\u{10000}-\u{10ffff}]|\r(?!\n)/u;

/**
 * Reads a YAML file that Pulumi or k3d reads too, as YAML 1.1: what means something else in 1.2, such as octal numbers,
 * dates, `no` and merge keys, is refused.
 * @param path relative to the directory. @param hint a whole sentence: what to do if the file is missing.
 * @returns null for a file without content.
 * @throws LabError (exit code 2) that names the file, the line, and what is accepted instead.
 */
export async function readPlainYaml(path: string, directory: string, hint: string): Promise<unknown> {
  try {
    const file = resolve(directory, path);
    const found = await stat(file);
    // Reading a pipe or a device might never end.
    if (!found.isFile() && !found.isDirectory()) throw new Error("it is not a regular file");
    if (found.size > longest) throw new Error(`it has ${found.size} bytes; expected at most ${longest}`);
    return parsePlainYaml(await readFile(file), path);
  } catch (cause) {
    if (cause instanceof LabError) throw cause;
    const { code, message } = cause as NodeJS.ErrnoException;
    const reason = reasons[code ?? ""] ?? message;
    throw refusal(`${path} cannot be read: ${reason}. ${hint}`, cause);
  }
}

const longest = 1 << 20;

const reasons: Readonly<Record<string, string>> = {
  ENOENT: "it does not exist",
  EISDIR: "it is a folder",
  ELOOP: "it is a symbolic link that leads back to itself",
  EACCES: "you may not read it",
};

/** Like `readPlainYaml`, from the content of a file. */
export function parsePlainYaml(bytes: Uint8Array, file: string): unknown {
  const refuse = (line: number | undefined, what: string, cause?: unknown): never => {
    const where = line === undefined ? file : `${file}, line ${line}`;
    throw refusal(`${where}: ${what}.`, cause);
  };
  let text: string;
  try {
    text = new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch (cause) {
    return refuse(undefined, "not UTF-8; expected a YAML file in UTF-8", cause);
  }
  const odd = strange.exec(text);
  if (odd)
    refuse(
      text.slice(0, odd.index).split("\n").length,
      `the character ${JSON.stringify(odd[0])}; expected spaces, line feeds and printable text`,
    );
  const lines = new LineCounter();
  const lineAt = (offset = 0) => lines.linePos(offset).line;
  try {
    const document = parseDocument(text, { lineCounter: lines, prettyErrors: false });
    const [fault] = [...document.errors, ...document.warnings];
    if (fault) refuse(lineAt(fault.pos[0]), faults[fault.code] ?? `not YAML: ${fault.message}`);
    if (document.directives?.yaml.explicit)
      refuse(1, "a directive that names the version of YAML; expected none");
    visit(document, {
      Node: (key, node, ancestors) => {
        const fault = goFault(node, key, ancestors, text);
        if (fault) refuse(lineAt(node.range?.[0]), fault);
      },
    });
    const older = scalarsOf(parseDocument(text, { version: "1.1" }));
    for (const [index, { scalar, key }] of scalarsOf(document).entries())
      if (!isDeepStrictEqual(scalar.value, older[index]?.scalar.value))
        refuse(
          lineAt(scalar.range?.[0]),
          `${key}Pulumi and the lab would read ${isSecretKey(nameIn(key)) ? "it" : scalar.source} differently; expected a decimal number, true, false, or text in quotes`,
        );
    return document.toJS();
  } catch (cause) {
    if (cause instanceof LabError) throw cause;
    const { message } = cause as Error;
    return refuse(
      undefined,
      cause instanceof RangeError ? "nested too deeply" : `not YAML: ${message}`,
      cause,
    );
  }
}

/** What Pulumi's and k3d's parser, gopkg.in/yaml.v3, rejects or misreads in every version of YAML. */
function goFault(
  node: Node,
  key: unknown,
  ancestors: readonly (Document | Node | Pair)[],
  text: string,
): string | undefined {
  if (key === "key" && !(isScalar(node) && typeof node.value === "string"))
    return "a key that is no text; expected a name";
  if ("anchor" in node && node.anchor && !/^[\w-]+$/.test(node.anchor))
    return `the anchor ${node.anchor}; expected a name of letters and digits`;
  if (isAlias(node)) {
    const [document] = ancestors;
    const isInside = isDocument(document) && ancestors.some((one) => one === node.resolve(document));
    return isInside ? `the alias *${node.source} inside the value that it stands for` : undefined;
  }
  if (node.tag === "!") return "the tag !; expected a value without one";
  if (!isScalar(node)) return undefined;
  const written = text.slice(node.range?.[0], node.range?.[1]);
  if (node.type === "QUOTE_DOUBLE" && /(^|[^\\])(\\\\)*\\(\/|u[dD][89a-fA-F])/.test(written))
    return `${written}; expected / and characters beyond U+FFFF as they are, or by \\U and eight digits`;
  const isInFlow = ancestors.some((one) => isCollection(one) && one.flow);
  if (node.type === "PLAIN" && isInFlow && /\?|^:|:$/.test(written))
    return `${written} in brackets or braces; expected it in quotes`;
  return undefined;
}

/** Friendlier messages for some of the parser's errors; the others stay as they are. */
const faults: Readonly<Record<string, string>> = {
  DUPLICATE_KEY: "a duplicate key; expected each key once",
  RESOURCE_EXHAUSTION: "nested too deeply",
  MULTIPLE_DOCS: "a second document; expected only one, without ---",
};

const nameIn = (key: string): string => key.replace(/: $/, "").replace(/^.*\./, "");

/** The scalars of a document in order, with their places, such as `k3s-lab:machines[0].ip: `. */
function scalarsOf(document: Document): readonly { readonly scalar: Scalar; readonly key: string }[] {
  const all: { scalar: Scalar; key: string }[] = [];
  visit(document, {
    Scalar: (_, scalar, ancestors) => {
      const chain = [...ancestors, scalar];
      const path = chain.reduce((path, one, index) => {
        if (isPair(one) && isScalar(one.key)) return `${path}${path ? "." : ""}${String(one.key.value)}`;
        const next = chain[index + 1];
        return isSeq(one) ? `${path}[${one.items.indexOf(next)}]` : path;
      }, "");
      const key = path.replace(/^config\.(?=k3s-lab:)/, "");
      all.push({ scalar, key: key ? `${key}: ` : "" });
    },
  });
  return all;
}
