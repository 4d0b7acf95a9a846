import { z } from "zod";
import { refusal } from "../lib/errors.ts";
import type { KubernetesApi } from "../lib/kubernetes.ts";
import type { StateResource } from "../lib/state.ts";
import { type OnCluster, stackFile } from "../model/config.ts";
import { parseQuantity } from "../model/quota.ts";
import { volumesAskedFor } from "../model/volumes.ts";

/**
 * A volume with data: either of a StatefulSet's pod, whose claim Kubernetes creates outside Pulumi's state and keeps until
 * the namespace is deleted, or of a program's own claim, for backups.
 */
export interface DataVolume {
  readonly namespace: string;
  readonly claim: string;
  /** The requested size, such as `1Gi`. */
  readonly size: string;
  /** Undefined: the cluster's default. */
  readonly storageClass?: string | undefined;
}

interface ClaimTemplate extends Omit<DataVolume, "claim"> {
  /** Prefix of each claim's name; the pod's ordinal follows. */
  readonly prefix: string;
  readonly pods: number;
}

const storage = z.object({ requests: z.object({ storage: z.string() }) });

const setSchema = z.object({
  metadata: z.object({ name: z.string(), namespace: z.string() }),
  spec: z.object({
    replicas: z.int().default(1),
    volumeClaimTemplates: z
      .array(
        z.object({
          metadata: z.object({ name: z.string() }),
          spec: z.object({
            storageClassName: z.string().optional(),
            resources: storage,
          }),
        }),
      )
      .default([]),
  }),
});

/** Whether a resource is a StatefulSet. */
export const isStatefulSet = (types: string): boolean => types.endsWith("kubernetes:apps/v1:StatefulSet");

/** The claims of a StatefulSet. @param inputs of its resource. */
function claimsOf(inputs: unknown): ClaimTemplate[] {
  const { data } = setSchema.safeParse(inputs);
  if (data === undefined) return [];
  const { name, namespace } = data.metadata;
  return data.spec.volumeClaimTemplates.map(({ metadata, spec }) => ({
    namespace,
    prefix: `${metadata.name}-${name}-`,
    size: spec.resources.requests.storage,
    pods: data.spec.replicas,
    storageClass: spec.storageClassName,
  }));
}

/** The volumes of a StatefulSet's pods. @param inputs of its resource. */
export const volumesOf = (inputs: unknown): DataVolume[] =>
  claimsOf(inputs).flatMap(({ namespace, prefix, size, pods }) =>
    Array.from({ length: pods }, (_, ordinal) => ({ namespace, claim: `${prefix}${ordinal}`, size })),
  );

const claimSchema = z.object({
  metadata: z.object({ name: z.string(), namespace: z.string() }),
  spec: z.object({ resources: storage, storageClassName: z.string().optional() }),
});

/** Whether a resource is a PersistentVolumeClaim of the program's own. */
const isClaim = (types: string): boolean => types.endsWith("kubernetes:core/v1:PersistentVolumeClaim");

/** The volume of such a claim. @param inputs of its resource. */
export function claimedVolume(inputs: unknown): DataVolume | undefined {
  const { metadata, spec } = claimSchema.safeParse(inputs).data ?? {};
  return metadata && spec
    ? {
        namespace: metadata.namespace,
        claim: metadata.name,
        size: spec.resources.requests.storage,
        // An empty name means no class.
        storageClass: spec.storageClassName || undefined,
      }
    : undefined;
}

const recordedClaims = (resources: readonly StateResource[]): DataVolume[] =>
  resources.flatMap(({ type, inputs }) => (isClaim(type) ? (claimedVolume(inputs) ?? []) : []));

const recordedSets = (resources: readonly StateResource[]) =>
  resources.filter(({ type }) => isStatefulSet(type)).map(({ inputs }) => inputs);

/** The volumes in a stack's state: its pods' and its program's own claims. */
export const recordedVolumes = (resources: readonly StateResource[]): DataVolume[] => [
  ...recordedSets(resources).flatMap(volumesOf),
  ...recordedClaims(resources),
];

/**
 * The lab's volumes in a stack's namespace, as the cluster reports them, including those whose pod is no longer wanted and
 * those that an interrupted `lab down` left. Kubernetes copies the pods' labels to their claims.
 */
export const observedVolumes = async (
  api: Pick<KubernetesApi, "persistentVolumeClaims">,
  namespace: string,
): Promise<DataVolume[]> =>
  (await api.persistentVolumeClaims(namespace))
    .filter(({ metadata }) => metadata.labels["app.kubernetes.io/part-of"] === "k3s-lab")
    .map(({ metadata, spec }) => ({
      namespace,
      claim: metadata.name,
      size: spec.resources.requests.storage,
    }));

/** A description of a volume for those who may lose it. */
export const inWords = ({ namespace, claim, size }: DataVolume): string =>
  `the volume ${namespace}/${claim} (${size}), with all data on it`;

/**
 * Refuses changes of existing volumes: Kubernetes cannot shrink them or change their class, and K3s's local-path cannot
 * expand them.
 * @param resources in the stack's state, on a cluster that still exists.
 * @throws LabError (exit code 2).
 */
export function refuseOtherVolumes(
  stack: string,
  config: OnCluster,
  resources: readonly StateResource[],
): void {
  const all = [
    ...recordedSets(resources)
      .flatMap(claimsOf)
      .map(({ prefix, ...one }) => ({ ...one, claim: prefix })),
    ...recordedClaims(resources),
  ].filter(({ namespace }) => namespace === config.namespace);
  for (const asked of volumesAskedFor(config)) {
    const made = all.find(({ claim }) => claim === asked.claim);
    if (made === undefined) continue;
    const [key, was] =
      parseQuantity(made.size) !== parseQuantity(asked.size)
        ? [asked.sizeKey, made.size]
        : made.storageClass !== asked.storageClass
          ? [asked.classKey, made.storageClass ?? "the cluster's own"]
          : [];
    if (key === undefined) continue;
    throw refusal(
      `${stackFile(stack)}: k3s-lab:${key}: ${asked.what} exist and cannot be changed (${was}). Set it back; to get different volumes, first run \`scripts/lab down ${stack}\`, which deletes them and all data on them.`,
    );
  }
}
