import { createHash } from "node:crypto";
import { readFile, stat } from "node:fs/promises";
import { join } from "node:path";
import { parse } from "yaml";
import { labDir } from "../lib/paths.ts";

/** What must be done about the kubeconfig of a stack on this computer. */
export interface KubeconfigObservation {
  /** Why its file must be written again; undefined: it is as it should be, or was never written. */
  readonly file?: string;
  /** Why K3s's own must be read again. */
  readonly original?: string;
}

/**
 * Looks at the copy of the kubeconfig. What a person changed in it stays; one that is missing, or that others may read, is
 * written again, and so is one whose client certificate no server has any more: K3s renews it at a start within 90 days
 * of its end.
 * @param file the copy. @param certificates those that servers have now, as far as they are known.
 */
export async function observeKubeconfig(
  file: string,
  certificates: readonly string[],
): Promise<KubeconfigObservation> {
  const text = await readFile(file, "utf8").catch(() => undefined);
  if (text === undefined) return { file: "missing" };
  let certificate: string | undefined;
  try {
    certificate = clientCertificate(text);
  } catch {
    return { file: "unreadable" };
  }
  if (certificate === undefined) return { file: "without a client certificate" };
  const hash = createHash("sha256").update(certificate).digest("hex");
  if (certificates.length > 0 && !certificates.includes(hash))
    return { file: "outdated", original: "renewed" };
  return (await stat(file)).mode & 0o077 ? { file: "readable by others" } : {};
}

function clientCertificate(text: string): string | undefined {
  const { users } = parse(text) as { users?: readonly { user?: Readonly<Record<string, unknown>> }[] };
  const value = users?.[0]?.user?.["client-certificate-data"];
  return typeof value === "string" ? value : undefined;
}

/** Where the copy of a stack's kubeconfig is. */
export const kubeconfigCopy = (stack: string): string => join(labDir, stack, "kubeconfig");
