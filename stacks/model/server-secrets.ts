import { readFile, stat } from "node:fs/promises";
import { refusal } from "../lib/errors.ts";
import { k3sFlags } from "./k3s-flags.ts";
import { kubeconfigFile as pathOf } from "./kubeconfig.ts";
import { parsePlainYaml } from "./plain-yaml.ts";
import { isRecord } from "./schema.ts";

const accepted = k3sFlags.filter(({ byFile }) => byFile).map(({ name }) => name.slice(2));

/**
 * Reads the file of `k3s-lab:k3s.serverSecrets`. Its messages never show a value.
 * @param file as the stack file names it. @param stackFile named in every error. @param directory the checkout.
 * @returns K3s configuration, as YAML; undefined if no file is named.
 * @throws LabError (exit code 2) if it is missing, readable by others, or holds something else.
 */
export async function readServerSecrets(
  file: string | undefined,
  stackFile: string,
  directory: string,
): Promise<string | undefined> {
  if (file === undefined) return undefined;
  const refuse = (expected: string) =>
    refusal(`${stackFile}: k3s-lab:k3s.serverSecrets: ${file} is not accepted; expected ${expected}.`);
  const path = pathOf(file, directory);
  const found = await stat(path).catch(() => undefined);
  if (!found?.isFile()) throw refuse("a file that exists");
  if (found.mode & 0o077) throw refuse(`a file that only you may read: chmod 600 ${path}`);
  const text = await readFile(path).catch(() => {
    throw refuse("a file that you can read");
  });
  const values = read(text);
  const wrong = Object.entries(values ?? {}).find(
    ([key, value]) => !accepted.includes(key) || typeof value !== "string" || !/^[!-~]+$/.test(value),
  );
  if (values === undefined || wrong !== undefined)
    throw refuse(
      `a YAML mapping of ${accepted.join(", ")} to text of printable characters, in quotes${wrong ? ` (wrong: ${wrong[0]}); other flags belong in k3s.serverArgs` : ""}`,
    );
  return JSON.stringify(values);
}

function read(bytes: Uint8Array): Readonly<Record<string, unknown>> | undefined {
  try {
    const values = parsePlainYaml(bytes, "");
    return isRecord(values) ? values : undefined;
  } catch {
    // The parser's message quotes the text.
    return undefined;
  }
}
