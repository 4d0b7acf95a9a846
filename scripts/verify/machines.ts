import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { execa } from "execa";
import { z } from "zod";
import { labDir } from "../paths.ts";

const factsSchema = z.object({
  addresses: z.array(
    z.object({
      ifname: z.string(),
      addr_info: z
        .array(z.object({ local: z.string().optional(), prefixlen: z.int().optional() }))
        .default([]),
    }),
  ),
  // Older releases of `ip -json` print an empty object for what a filter left out.
  flannel: z.array(
    z.object({
      linkinfo: z
        .object({
          info_kind: z.string().optional(),
          info_data: z.object({ link: z.string().optional(), local: z.string().optional() }).default({}),
        })
        .default({ info_data: {} }),
    }),
  ),
});

/** What a machine says of its own network. */
export type MachineFacts = z.output<typeof factsSchema>;

/** @throws Error when the text is not what `machine.sh` prints. */
export function parseMachineFacts(text: string): MachineFacts {
  try {
    return factsSchema.parse(JSON.parse(text));
  } catch (cause) {
    throw new Error("its answer is not understood", { cause });
  }
}

/**
 * Asks a machine over ssh, once for everything.
 * @param ip the machine's address in the lab; its host key is the one that was noted when K3s was installed.
 * @param timeout in milliseconds. Default: 8000.
 * @throws Error that says why there is no answer.
 */
export async function readMachine(ip: string, timeout = 8000): Promise<MachineFacts> {
  const options = [
    `IdentityFile=${join(labDir, "ssh", "id_ed25519")}`,
    `UserKnownHostsFile=${join(labDir, "ssh", `known_hosts.${ip}`)}`,
    ...["IdentitiesOnly=yes", "BatchMode=yes", "StrictHostKeyChecking=accept-new", "LogLevel=ERROR"],
  ];
  const result = await execa(
    "ssh",
    [...options.flatMap((option) => ["-o", option]), `vagrant@${ip}`, "sh", "-s"],
    { input: await readFile(join(import.meta.dirname, "machine.sh")), timeout, reject: false },
  );
  if (result.timedOut) throw new Error(`ssh: no answer within ${timeout / 1000} s`);
  if (result.failed) throw new Error(result.stderr?.trim().split("\n").at(-1) || result.shortMessage);
  return parseMachineFacts(result.stdout);
}
