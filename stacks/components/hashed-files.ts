import { createHash, scryptSync } from "node:crypto";
import * as k8s from "@pulumi/kubernetes";
import * as pulumi from "@pulumi/pulumi";

/** Contents of files by name; a name holds letters, digits, `-`, `_` and `.`. */
export type Files = Readonly<Record<string, pulumi.Input<string>>>;

/** Metadata of an object whose name is this prefix and a hash of its content. */
export interface HashedMetadata {
  readonly name: string;
  readonly namespace: pulumi.Input<string>;
  readonly labels: Readonly<Record<string, string>>;
}

/** A ConfigMap whose name changes with its content, so that only a new content rolls out the pods that mount it. */
export const hashedConfigMap = (
  name: string,
  metadata: HashedMetadata,
  files: Files,
  parent: pulumi.Resource,
): k8s.core.v1.ConfigMap =>
  new k8s.core.v1.ConfigMap(
    name,
    {
      metadata: { ...metadata, name: hashedName(metadata.name, files, parent, quick) },
      immutable: true,
      data: files,
    },
    kept(parent),
  );

/** The same as a Secret. */
export const hashedSecret = (
  name: string,
  metadata: HashedMetadata,
  files: Files,
  parent: pulumi.Resource,
): k8s.core.v1.Secret =>
  new k8s.core.v1.Secret(
    name,
    {
      metadata: { ...metadata, name: pulumi.unsecret(hashedName(metadata.name, files, parent, slow)) },
      immutable: true,
      stringData: pulumi.secret(files),
    },
    kept(parent),
  );

/** The old object stays until the run ends, because pods still mount it. */
const kept = (parent: pulumi.Resource) => ({ parent, deleteBeforeReplace: false });

/**
 * A name that changes with the content and with the cluster: if one cluster is known by two identities, a deletion on the
 * old one must not delete what the new one created.
 */
function hashedName(
  prefix: string,
  files: Files,
  parent: pulumi.Resource,
  digest: (text: string) => string,
): pulumi.Output<string> {
  const cluster = parent.getProvider("kubernetes:core/v1:Secret")?.id ?? "";
  return pulumi.all([files, cluster]).apply(([content, id]) => {
    const sorted = Object.entries(content).sort(([a], [b]) => (a < b ? -1 : 1));
    return `${prefix}-${digest(JSON.stringify([sorted, id]))}`;
  });
}

const quick = (text: string): string => createHash("sha256").update(text).digest("hex").slice(0, 10);

/** Slow, so that the name of a Secret is of no use for guessing passwords. */
const slow = (text: string): string => scryptSync(text, "k3s-lab", 5).toString("hex");
