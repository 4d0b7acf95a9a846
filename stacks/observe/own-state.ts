import { readFile } from "node:fs/promises";
import { z } from "zod";
import { LabError } from "../lib/errors.ts";
import { stateFile } from "../lib/paths.ts";

/** A Kubernetes object that this stack has made, as Pulumi's state of it says. */
export interface HeldObject {
  /** Its name in Pulumi. */
  readonly resource: string;
  readonly apiVersion: string;
  readonly kind: string;
  readonly namespace?: string | undefined;
  readonly name: string;
  /** The API server's own name for it: another object of the same name has another. */
  readonly uid: string;
  /** The lab's mark that the last run put on it. Absent in states of older versions. */
  readonly lab?: string | undefined;
  /** Names the resource of the cluster that it is on. */
  readonly provider?: string | undefined;
}

/** What the state of an `apps` stack says of the last run. */
export interface OwnState {
  readonly objects: readonly HeldObject[];
  /** The `clusterIdentifier` that the last run used. Absent where there was none. */
  readonly clusterIdentifier?: string | undefined;
  /** By resource, what its command was told the last time. */
  readonly environments: ReadonlyMap<string, Readonly<Record<string, string>>>;
}

const resourceSchema = z.object({
  urn: z.string(),
  type: z.string(),
  provider: z.string().optional(),
  inputs: z.looseObject({}).optional(),
  outputs: z.looseObject({}).optional(),
});

const stateSchema = z.object({
  checkpoint: z.object({
    latest: z.object({ resources: z.array(resourceSchema).nullish() }).nullish(),
  }),
});

const labelsSchema = z.object({ metadata: z.object({ labels: z.record(z.string(), z.string()) }) });

const objectSchema = z.object({
  apiVersion: z.string(),
  kind: z.string(),
  metadata: z.object({ name: z.string(), namespace: z.string().optional(), uid: z.string() }),
});

/**
 * Reads what Pulumi noted of this stack. A program does so to know what is its own: objects by their UIDs, and the
 * cluster that they are on.
 *
 * @param file Default: where the lab keeps the state. Without it, nothing is known.
 * @throws LabError when the file is there and cannot be read.
 */
export async function readOwnState(stack: string, file: string = stateFile(stack)): Promise<OwnState> {
  const resources = await resourcesIn(file);
  const provider = resources.findLast(({ type }) => type === "pulumi:providers:kubernetes")?.inputs;
  return {
    objects: resources.flatMap((one) => {
      if (!one.type.startsWith("kubernetes:")) return [];
      const parsed = objectSchema.safeParse(one.outputs).data;
      if (parsed === undefined) return [];
      const { metadata, apiVersion, kind } = parsed;
      const labels = labelsSchema.safeParse(one.inputs).data?.metadata.labels;
      const lab = labels?.["k3s-lab/lab"];
      const through = one.provider === undefined ? {} : { provider: one.provider };
      return { resource: nameOf(one.urn), apiVersion, kind, ...metadata, lab, ...through };
    }),
    clusterIdentifier: z.string().safeParse(provider?.clusterIdentifier).data,
    environments: new Map(
      resources.flatMap((one) => {
        const environment = z.record(z.string(), z.string()).safeParse(one.inputs?.environment).data;
        return environment ? [[nameOf(one.urn), environment] as const] : [];
      }),
    ),
  };
}

/**
 * What names the making of each machine that this stack has made, by the machine's name.
 * @throws LabError when the state is there and cannot be read.
 */
export async function recordedGenerations(
  stack: string,
  file: string = stateFile(stack),
): Promise<ReadonlyMap<string, string>> {
  const environments = (await resourcesIn(file)).map(({ urn, inputs }) => ({
    name: nameOf(urn),
    environment: z.record(z.string(), z.string()).safeParse(inputs?.environment).data,
  }));
  return new Map(
    environments.flatMap(({ name, environment: { LAB_MACHINE, LAB_GENERATION } = {} }) =>
      LAB_MACHINE && LAB_GENERATION ? [[name, LAB_GENERATION] as const] : [],
    ),
  );
}

const nameOf = (urn: string): string => urn.split("::").at(-1) ?? urn;

/** The resources in a state; none where it is not there. */
async function resourcesIn(file: string): Promise<readonly z.output<typeof resourceSchema>[]> {
  try {
    const text = await readFile(file, "utf8");
    return stateSchema.parse(JSON.parse(text)).checkpoint.latest?.resources ?? [];
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === "ENOENT") return [];
    throw unreadable(file, cause);
  }
}

const unreadable = (file: string, cause: unknown): LabError =>
  new LabError(
    `Pulumi's state ${file} cannot be read: ${(cause as Error).message.split("\n")[0]}. Pulumi keeps the state before it beside it, as ${file}.bak.`,
    { cause },
  );
