import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";
import { tryDocker } from "../../stacks/k3d/docker.ts";
import type { PlannedNode } from "../../stacks/model/cluster-plan.ts";
import type { CheckSpec } from "./check.ts";

/** The numbers of encrypted and plain-text records of Secrets in a server's datastore. */
export const secretRecords = z.object({ encrypted: z.int(), readable: z.int() });
export type SecretRecords = z.output<typeof secretRecords>;

/** The script that runs on a server as root. */
export const datastoreScript = (): Promise<string> =>
  readFile(join(import.meta.dirname, "datastore.sh"), "utf8");

/** Queries a k3d server. @param timeout in milliseconds. @throws Error with the reason if there is no answer. */
export async function readContainer(name: string, timeout: number): Promise<SecretRecords> {
  const answer = await tryDocker(["exec", "--interactive", name, "sh", "-s"], {
    input: await datastoreScript(),
    within: timeout / 1000,
  });
  try {
    return secretRecords.parse(JSON.parse(answer.stdout));
  } catch (cause) {
    const why = answer.stderr.trim().split("\n").at(-1) || "its answer is not understood";
    throw new Error(`docker exec ${name}: ${why}`, { cause });
  }
}

/**
 * Checks, in each server's datastore file, that Secrets are encrypted if K3s is configured to; if not,
 * readable Secrets are reported but are no failure.
 * @param ask queries a server; undefined: it has no datastore.
 */
export const checkSecrets = (
  servers: readonly PlannedNode[],
  isEncrypted: boolean,
  ask: (server: PlannedNode) => Promise<SecretRecords | null | undefined>,
): CheckSpec[] =>
  servers.map((server) => ({
    id: `${server.name}/secrets`,
    title: `${server.name}: Secrets in the file of its datastore`,
    expected: isEncrypted ? encrypted : plain,
    actual: async () => {
      const records = await ask(server);
      if (!records || records.encrypted + records.readable === 0)
        throw new Error("no Secret was found there");
      if (records.encrypted === 0) return plain;
      return records.readable === 0 ? encrypted : "some are encrypted, some readable";
    },
    hint: "K3s encrypts Secrets from a cluster's first start, and Secrets written before stay as they were: see `docs/operations.md`, 'Secrets at rest'.",
  }));

const encrypted = "encrypted";
const plain = "readable: K3s encrypts them with --secrets-encryption";
