import { createHash } from "node:crypto";
import { readFile, stat } from "node:fs/promises";
import { join } from "node:path";
import { parse } from "yaml";
import { labDir } from "../lib/paths.ts";

/** Pending work on the kubeconfig of a stack on this computer. */
export interface KubeconfigObservation {
  /** Why its file must be rewritten; undefined: it is correct, or was never written. */
  readonly file?: string;
  /** Why K3s's kubeconfig must be read again. */
  readonly original?: string;
}

/**
 * Checks the copy of the kubeconfig. A person's changes to it stay; it is rewritten if it is missing, readable by others, or
 * holds a client certificate that no server has any more: K3s renews it at a start within 90 days of its expiry.
 * @param file the copy. @param certificates the servers' current ones, as far as known.
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

/** Path of the copy of a stack's kubeconfig. */
export const kubeconfigCopy = (stack: string): string => join(labDir, stack, "kubeconfig");
