import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { execa } from "execa";
import { z } from "zod";
import { root } from "../../stacks/lib/paths.ts";
import { sshTo } from "../../stacks/model/ssh-config.ts";
import { datastoreScript, secretRecords } from "./secrets.ts";

const factsSchema = z.object({
  addresses: z.array(
    z.object({
      ifname: z.string(),
      addr_info: z
        .array(z.object({ local: z.string().optional(), prefixlen: z.int().optional() }))
        .default([]),
    }),
  ),
  // Older releases of `ip -json` print an empty object for each filtered entry.
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
  /** Seconds by which its clock is ahead of this computer's; negative: behind. */
  clock: z.number().transform((seconds) => seconds - Date.now() / 1000),
  k3s: z.object({
    /** The state of K3s's systemd unit; empty if systemd does not run. */
    state: z.string(),
    /** How often systemd restarted it. */
    restarts: z.int(),
    /** The number of OOM kills. */
    killed: z.int(),
  }),
  /** Of a server. */
  secrets: secretRecords.nullish(),
});

/** A machine's own report. */
export type MachineFacts = z.output<typeof factsSchema>;

/** @throws Error when the text is not what `machine.sh` prints. */
export function parseMachineFacts(text: string): MachineFacts {
  try {
    return factsSchema.parse(JSON.parse(text.split(/^k3s-lab-begins$/m).at(-1) ?? ""));
  } catch (cause) {
    throw new Error("its answer is not understood", { cause });
  }
}

/**
 * Queries a machine over ssh, with one connection.
 * @param alias the machine as its ssh configuration in `.lab/ssh` calls it (`sshAlias`).
 * @param timeout in milliseconds.
 * @throws Error with the reason if there is no answer.
 */
export async function readMachine(alias: string, timeout: number): Promise<MachineFacts> {
  const [datastore, machine] = await Promise.all([
    datastoreScript(),
    readFile(join(import.meta.dirname, "machine.sh"), "utf8"),
  ]);
  const result = await execa("ssh", [...sshTo(root, alias), "sh", "-s"], {
    input: `secrets=$(sudo -n sh <<'END'\n${datastore}END\n)\n${machine}`,
    env: { K3S_LAB_ROOT: root },
    timeout,
    reject: false,
  });
  if (result.timedOut) throw new Error(`ssh: no answer within ${timeout / 1000} s`);
  if (result.failed) throw new Error(result.stderr?.trim().split("\n").at(-1) || result.shortMessage);
  return parseMachineFacts(result.stdout);
}
