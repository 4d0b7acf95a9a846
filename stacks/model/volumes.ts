import type { OnCluster } from "./config.ts";

/** A volume in a stack's file, which cannot change once it exists. */
export interface AskedVolume {
  /** Its display name. */
  readonly what: string;
  /** Name of its claim; for a StatefulSet, the prefix of its claims' names. */
  readonly claim: string;
  readonly size: string;
  readonly sizeKey: string;
  /** Undefined: the cluster's default. */
  readonly storageClass?: string | undefined;
  /** Undefined for a volume without dynamic provisioning. */
  readonly classKey?: string;
}

/** The volumes that a stack's file asks for. */
export function volumesAskedFor(config: Partial<OnCluster>): readonly AskedVolume[] {
  if ("database" in config && config.database !== undefined) {
    const { size, storageClass } = config.database;
    const what = "the volumes of the database";
    return [{ what, claim: "data-db-", size, storageClass, ...keysOf("database", "size") }];
  }
  if ("dynamic" in config && config.dynamic !== undefined && config.static !== undefined) {
    const { claim: size, storageClass } = config.dynamic;
    const what = "the volumes of the pods";
    return [
      { what, claim: "static", size: config.static.claim, sizeKey: "static.claim" },
      { what, claim: "dynamic", size, storageClass, ...keysOf("dynamic", "claim") },
    ];
  }
  return [];
}

const keysOf = (key: string, size: string) => ({
  sizeKey: `${key}.${size}`,
  classKey: `${key}.storageClass`,
});
