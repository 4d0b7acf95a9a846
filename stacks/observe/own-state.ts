import { z } from "zod";
import { stateFile } from "../lib/paths.ts";
import { checkpointOf, partsOfUrn, type StateResource, stateOf } from "../lib/state.ts";
import { autoscaledMark } from "../model/replicas.ts";
import { environmentOf } from "./recorded.ts";

/** A Kubernetes object that this stack created, according to Pulumi's state. */
export interface HeldObject {
  readonly apiVersion: string;
  readonly kind: string;
  readonly namespace?: string | undefined;
  readonly name: string;
  /** The object's UID: another object of the same name has another. */
  readonly uid: string;
  /** The lab's id that the last run put on the object. */
  readonly lab?: string | undefined;
  /** The provider resource of its cluster. */
  readonly provider?: string | undefined;
}

/** What the state of an `apps` stack says about the last run. */
export interface OwnState {
  readonly objects: readonly HeldObject[];
  /** Where the objects are, or would be, that a killed run was creating. */
  readonly pending: readonly Pick<HeldObject, "apiVersion" | "kind" | "namespace" | "name">[];
  /** Field manager by type and name of a resource. */
  readonly managers: ReadonlyMap<string, string>;
  /** Last environment of a resource's command, by resource. */
  readonly environments: ReadonlyMap<string, Readonly<Record<string, string>>>;
  /** Types and names of what has zero replicas. */
  readonly stopped: ReadonlySet<string>;
  /** Types and names of what has or had an autoscaler. */
  readonly autoscaled: ReadonlySet<string>;
}

const managedSchema = z.object({ __fieldManager: z.string() });
const stoppedSchema = z.object({ spec: z.object({ replicas: z.literal(0) }) });
const annotatedSchema = z.object({
  metadata: z.object({ annotations: z.record(z.string(), z.unknown()) }),
});
const labelsSchema = z.object({ metadata: z.object({ labels: z.record(z.string(), z.string()) }) });

const placeSchema = z.object({
  apiVersion: z.string(),
  kind: z.string(),
  metadata: z.object({ name: z.string(), namespace: z.string().optional() }),
});
const objectSchema = placeSchema.extend({ metadata: placeSchema.shape.metadata.extend({ uid: z.string() }) });

/** The Kubernetes provider then reverts what another field manager has set. */
export const forcedMark = "pulumi.com/patchForce";

const keysOf = (resources: readonly StateResource[]): ReadonlySet<string> =>
  new Set(resources.map(({ urn, type }) => `${type} ${partsOfUrn(urn).name}`));

/**
 * Reads Pulumi's state of this stack, from which a program learns what it owns: objects by UID, and their cluster.
 * @param file Default: where the lab keeps the state. Without it, nothing is known.
 * @throws LabError when the file exists and cannot be read.
 */
export async function readOwnState(stack: string, file: string = stateFile(stack)): Promise<OwnState> {
  const { resources, pending } = await checkpointOf(stack, file);
  return {
    pending: pending.flatMap(({ inputs }) => {
      const parsed = placeSchema.safeParse(inputs).data;
      return parsed ? [{ apiVersion: parsed.apiVersion, kind: parsed.kind, ...parsed.metadata }] : [];
    }),
    objects: resources.flatMap((one) => {
      if (!one.type.startsWith("kubernetes:")) return [];
      const parsed = objectSchema.safeParse(one.outputs).data;
      if (parsed === undefined) return [];
      const { metadata, apiVersion, kind } = parsed;
      const labels = labelsSchema.safeParse(one.inputs).data?.metadata.labels;
      const lab = labels?.["k3s-lab/lab"];
      const through = one.provider === undefined ? {} : { provider: one.provider };
      return { apiVersion, kind, ...metadata, lab, ...through };
    }),
    managers: new Map(
      resources.flatMap(({ urn, type, outputs }) => {
        const parsed = managedSchema.safeParse(outputs).data;
        return parsed ? [[`${type} ${partsOfUrn(urn).name}`, parsed.__fieldManager] as const] : [];
      }),
    ),
    environments: new Map(
      resources
        .filter(({ type }) => type === "command:local:Command")
        .map(({ urn, inputs }) => [partsOfUrn(urn).name, environmentOf(inputs)] as const),
    ),
    stopped: keysOf(resources.filter(({ inputs }) => stoppedSchema.safeParse(inputs).success)),
    autoscaled: keysOf(
      resources.filter(({ inputs }) => {
        const annotations = annotatedSchema.safeParse(inputs).data?.metadata.annotations ?? {};
        return autoscaledMark in annotations || forcedMark in annotations;
      }),
    ),
  };
}

/**
 * The generation of each machine that this stack created, by the machine's name.
 * @throws LabError when the state exists and cannot be read.
 */
export async function recordedGenerations(stack: string): Promise<ReadonlyMap<string, string>> {
  const resources = await stateOf(stack);
  return new Map(
    resources.flatMap(({ urn, inputs }) => {
      const { LAB_MACHINE, LAB_GENERATION } = environmentOf(inputs);
      return LAB_MACHINE && LAB_GENERATION ? [[partsOfUrn(urn).name, LAB_GENERATION] as const] : [];
    }),
  );
}
