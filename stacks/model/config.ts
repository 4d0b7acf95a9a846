import { closest } from "fastest-levenshtein";
import { z } from "zod";
import { refusal } from "../lib/errors.ts";
import { defaultK3sVersion } from "../versions.ts";
import { type AppsConfig, appsSchema } from "./apps.ts";
import { type ClusterConfig, clusterSchema } from "./cluster.ts";
import { type ConceptsConfig, conceptsSchema } from "./concepts.ts";
import { type MyAppConfig, myAppSchema } from "./my-app.ts";
import { text } from "./names.ts";
import { parsePlainYaml, readPlainYaml } from "./plain-yaml.ts";
import { checked, isRecord, knownKeys, shown } from "./schema.ts";

export * from "./apps.ts";
export * from "./cluster.ts";
export type { ConceptsConfig } from "./concepts.ts";
export * from "./my-app.ts";

const k3dSchema = z.strictObject({
  config: text(
    /^[^/].*\.ya?ml$/,
    "the path of a k3d config file in the checkout, such as stacks/k3d.yaml",
  ).describe("A k3d config file, relative to the checkout, such as `stacks/k3d.yaml`."),
});

type K3dConfig = z.output<typeof k3dSchema>;

/** The schema of each program's stack file. */
export const schemas = {
  cluster: clusterSchema,
  apps: appsSchema,
  k3d: k3dSchema,
  "my-app": myAppSchema,
  concepts: conceptsSchema,
} as const;

export interface Configs {
  readonly cluster: ClusterConfig;
  readonly apps: AppsConfig;
  readonly k3d: K3dConfig;
  readonly "my-app": MyAppConfig;
  readonly concepts: ConceptsConfig;
}

/** A program of this project; the beginning of a stack's name selects it. */
export type ProgramName = keyof Configs;

/** The program of a stack whose name is known at compile time; any program for other stacks. */
type ProgramOf<Stack extends string> = Stack extends ProgramName ? Stack : ProgramName;

/** The programs that create no cluster but use an existing one. */
const onCluster = ["apps", "my-app", "concepts"] as const satisfies readonly ProgramName[];
type OnClusterProgram = (typeof onCluster)[number];

/** The file of a stack that uses an existing cluster. */
export type OnCluster = Configs[OnClusterProgram];

/** Whether a program's stacks use an existing cluster. */
export const isOnCluster = (program: ProgramName): program is OnClusterProgram =>
  (onCluster as readonly ProgramName[]).includes(program);

/**
 * The program that a stack runs: `cluster-ha` runs `cluster`, `apps-k3d` runs `apps`.
 * @throws LabError when the name begins with no program's name.
 */
export function programOf(stack: string): ProgramName {
  const name = programNamed(stack, Object.keys(schemas) as ProgramName[]);
  if (name === undefined)
    throw refusal(
      `There is no program for the stack ${shown(stack)}. A stack's name is one of these, or begins with one of these and a dash: ${Object.keys(schemas).join(", ")}.`,
    );
  // Names of machines, containers and folders begin with it, and Kubernetes labels contain it.
  if (!/^[a-z0-9]([-a-z0-9]{0,38}[a-z0-9])?$/.test(stack))
    throw refusal(
      `The stack name ${shown(stack)} is not accepted; expected a-z, 0-9 and '-', at most 40 characters, no '-' at the end.`,
    );
  return name;
}

/** The program whose name a stack's begins with; a program's name may itself contain a dash. */
export const programNamed = <Name extends string>(
  stack: string,
  programs: readonly Name[],
): Name | undefined => programs.find((name) => stack === name || stack.startsWith(`${name}-`));

/** The file that holds a stack's configuration, relative to the checkout. */
export const stackFile = (stack: string): string => `Pulumi.${stack}.yaml`;

const prefix = "k3s-lab:";

/**
 * Checks the `k3s-lab:` values of a stack and fills in the defaults.
 * @param values keys without the `k3s-lab:` prefix.
 * @throws LabError (exit code 2) that names file, key, value and what is accepted, for every fault found.
 */
export function parseConfig<Program extends ProgramName>(
  program: Program,
  values: object,
  file: string,
): Configs[Program] {
  return checked<z.ZodType>(schemas[program], values, file, prefix) as Configs[Program];
}

/** Reads and checks `Pulumi.<stack>.yaml`. @param directory the folder of `Pulumi.yaml`. */
export async function readStackFile<Stack extends string>(
  stack: Stack,
  directory: string,
): Promise<Configs[ProgramOf<Stack>]> {
  const program = programOf(stack) as ProgramOf<Stack>;
  const file = stackFile(stack);
  const hint = `Copy ${stackFile(program)} and edit it.`;
  const document = await readPlainYaml(file, directory, hint);
  return parseConfig(program, ownValues(program, document, file), file);
}

/** Like `readStackFile`, from the present or planned content of the file of a stack that uses an existing cluster. */
export function parseOnCluster(stack: string, text: string): OnCluster {
  const program = programOf(stack) as OnClusterProgram;
  const file = stackFile(stack);
  return parseConfig(program, ownValues(program, parsePlainYaml(Buffer.from(text), file), file), file);
}

/** Reads and checks the file of a stack that uses an existing cluster. @param directory the folder of `Pulumi.yaml`. */
export const readOnCluster = (stack: string, directory: string): Promise<OnCluster> =>
  readStackFile(stack as OnClusterProgram, directory);

const besides = ["encryptionsalt"];

/** The values of the project's own keys; any other key is refused, because nothing would read it. */
function ownValues(program: ProgramName, document: unknown, file: string): Record<string, unknown> {
  const faults: string[] = [];
  const known = knownKeys(schemas[program], []);
  const whole = isRecord(document) ? document : {};
  if (!isRecord(document) || !("config" in document))
    faults.push(`config: is missing; expected keys such as ${prefix}${known[0]} under it`);
  for (const key of Object.keys(whole).filter((key) => key !== "config" && !besides.includes(key)))
    faults.push(topLevelFault(key, known));
  if (whole.encryptionsalt !== undefined && typeof whole.encryptionsalt !== "string")
    faults.push(
      `encryptionsalt: ${JSON.stringify(whole.encryptionsalt)} is not accepted; expected the text that Pulumi wrote, or no such key`,
    );
  const config = whole.config ?? {};
  if (!isRecord(config))
    faults.push(
      `config: ${JSON.stringify(config)} is not accepted; expected keys such as ${prefix}${known[0]}`,
    );
  const values: Record<string, unknown> = {};
  for (const [key, value] of Object.entries(isRecord(config) ? config : {})) {
    if (key.startsWith("pulumi:")) continue;
    const fault = keyFault(program, known, key, value);
    if (fault !== undefined) faults.push(fault);
    else values[key.slice(prefix.length)] = value;
  }
  if (faults.length) throw refusal(faults.map((fault) => `${file}: ${fault}.`).join("\n"));
  return values;
}

function topLevelFault(key: string, known: readonly string[]): string {
  const own = bare(key);
  if (key === "environment")
    return "environment: Vagrant and the lab do not read it; expected every value under config";
  if (key === "secretsprovider" || key === "encryptedkey")
    return `${key}: is not accepted; expected no such key: the lab's own passphrase encrypts the secrets in the state`;
  return known.includes(own)
    ? `${key}: is at the top level; expected it under config, as ${prefix}${own}`
    : `${key}: unknown key; did you mean "config"? Known: config`;
}

function keyFault(
  program: ProgramName,
  known: readonly string[],
  key: string,
  value: unknown,
): string | undefined {
  if (!key.startsWith(prefix))
    return `${key}: unknown key; did you mean "${prefix}${closest(bare(key), known)}"? This project's keys begin with ${prefix}`;
  if (holdsSecret(value))
    return `${key}: an encrypted value is not accepted, because only Pulumi can read it; expected plain text`;
  const name = key.slice(prefix.length);
  const owners = known.includes(name) ? [] : programsWith(name);
  return owners.length > 0
    ? `${key}: a key of ${owners.join(" and ")} stacks; this is a stack of ${program}. Known: ${known.join(", ")}`
    : undefined;
}

/** A key without what precedes its last colon or, after a misspelt prefix, `machines` and the like. */
const bare = (key: string): string => key.replace(/^.*:/, "").replace(/^k3s[-_.]?lab[-_.]?/, "");

const programsWith = (key: string): ProgramName[] =>
  (Object.keys(schemas) as ProgramName[]).filter((program) => knownKeys(schemas[program], []).includes(key));

const holdsSecret = (value: unknown): boolean =>
  isRecord(value)
    ? (Object.keys(value).length === 1 && typeof value.secure === "string") ||
      Object.values(value).some(holdsSecret)
    : Array.isArray(value) && value.some(holdsSecret);

/**
 * The K3s release of a cluster: the stack file's, else the one that its nodes have, else the one that `lab up` installed on
 * this computer.
 * @param made the release that its nodes were installed with.
 */
export const k3sVersion = ({ k3s }: ClusterConfig, made: string | undefined): string =>
  k3s.version ?? made ?? process.env.LAB_K3S_VERSION ?? defaultK3sVersion;
