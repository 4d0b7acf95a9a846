import { readdir, readFile, rm } from "node:fs/promises";
import { hostname } from "node:os";
import { basename, join } from "node:path";
import { setTimeout } from "node:timers/promises";
import { z } from "zod";
import { LabError } from "./errors.ts";
import { exists, ifThere } from "./files.ts";
import { labDir, stateFile } from "./paths.ts";
import { commandLine, processStart } from "./processes.ts";

/**
 * A stack's resources in Pulumi's state; empty without a state.
 * @throws LabError if the state exists and is invalid: nothing may be created beside the resources in it.
 */
export const stateOf = async (
  stack: string,
  file: string = stateFile(stack),
): Promise<readonly StateResource[]> => (await checkpointOf(stack, file)).resources;

/**
 * The same, with the resources that Pulumi was creating when it was killed: whether they exist is unknown.
 * @throws as `stateOf`.
 */
export async function checkpointOf(
  stack: string,
  file: string = stateFile(stack),
): Promise<{ readonly resources: readonly StateResource[]; readonly pending: readonly StateResource[] }> {
  const fault = (cause: unknown, reason: string, next: string) =>
    new LabError(
      `${file}, Pulumi's state of the stack "${stack}", cannot be read: ${reason}. ${next}, then run the same command again.`,
      { cause },
    );
  for (const [ending, unpack] of Object.entries(packed))
    if (await exists(`${file}${ending}`))
      throw fault(
        undefined,
        `Pulumi compressed it to ${file}${ending}`,
        `Unpack it with \`${unpack} '${file}${ending}'\``,
      );
  const text = await ifThere(readFile(file, "utf8")).catch((cause: Error) => {
    throw fault(cause, cause.message, "Make it readable for your user");
  });
  if (text === undefined) return { resources: [], pending: [] };
  try {
    const { latest } = stateSchema.parse(JSON.parse(text)).checkpoint;
    const pending = (latest?.pending_operations ?? []).filter(({ type }) => type === "creating");
    return { resources: latest?.resources ?? [], pending: pending.map(({ resource }) => resource) };
  } catch (cause) {
    const [issue] = cause instanceof z.ZodError ? cause.issues : [];
    const reason = issue ? `${issue.path.join(".")}: ${issue.message}` : (cause as Error).message;
    throw fault(cause, reason, `Restore the previous state, ${file}.bak`);
  }
}

/** The suffix of a compressed state in Pulumi's file backend, and what decompresses it. */
const packed = { ".gz": "gunzip", ".zst": "zstd --decompress --rm" } as const;

const resourceSchema = z.object({
  urn: z.string(),
  type: z.string(),
  id: z.string().optional(),
  /** The URN of its provider. */
  provider: z.string().optional(),
  inputs: z.record(z.string(), z.unknown()).optional(),
  outputs: z.record(z.string(), z.unknown()).optional(),
});

export type StateResource = Readonly<z.output<typeof resourceSchema>>;

const stateSchema = z.object({
  checkpoint: z.object({
    latest: z
      .object({
        resources: z.array(resourceSchema).nullish(),
        pending_operations: z.array(z.object({ resource: resourceSchema, type: z.string() })).nullish(),
      })
      .nullish(),
  }),
});

/**
 * Waits for something as long as a run on this computer holds a stack: whether a run on another computer is still alive is
 * unknown.
 * @param options.tell is told once whose run it waits for. @param options.locks the folder of the stack's locks. Default:
 * the one of this checkout.
 */
export async function whileHeld(
  stack: string,
  isThere: () => Promise<boolean>,
  { locks, tell }: { readonly locks?: string; readonly tell?: (pid: number) => void } = {},
): Promise<void> {
  const holder = async () =>
    (await locksOf(stack, locks)).find(({ alive, host }) => alive && host === undefined);
  let isTold = false;
  for (let held = await holder(); held && !(await isThere()); held = await holder()) {
    if (!isTold) tell?.(held.pid);
    isTold = true;
    await setTimeout(100);
  }
}

/** The types of a resource, its parents' first and joined by `$`, and its name: `urn:pulumi:STACK::PROJECT::TYPES::NAME`. */
export function partsOfUrn(urn: string): { readonly types: string; readonly name: string } {
  const [, types = "", name = ""] = /::([^:]*(?::[^:]+)*)::([^:]+)$/.exec(urn) ?? [];
  return { types, name };
}

/** A stack's exports; undefined if it was not brought up. @param resources of its state. */
export const outputsOf = (resources: readonly StateResource[]): StateResource["outputs"] =>
  resources.find(({ type }) => type === "pulumi:pulumi:Stack")?.outputs;

/** Whether Pulumi has a state of a stack. */
export const hasResources = async (stack: string): Promise<boolean> => (await stateOf(stack)).length > 0;

interface StackLock {
  readonly file: string;
  /** 0 if the lock cannot be read: a run was killed while it wrote it. */
  readonly pid: number;
  /** The computer that it runs on, if it is another one. */
  readonly host: string | undefined;
  readonly alive: boolean;
}

/** A stale lock, whose process is gone, protects nothing; Pulumi's file backend leaves it behind when it is killed. */
export async function endStaleLocks(stack: string): Promise<void> {
  for (const { file, pid, host, alive } of await locksOf(stack)) {
    if (alive)
      throw new LabError(
        `The stack "${stack}" is in use by process ${pid}${host ? ` on ${host}` : ""}. Wait until it ends and try again.${host ? ` If nothing runs there any more, remove ${file}.` : ""}`,
      );
    await rm(file, { force: true });
  }
}

/**
 * The processes that hold a stack. A process with a lock's pid holds it only if it is older than the lock: pids are reused.
 * @param folder where the locks are. Default: those of this checkout.
 */
export async function locksOf(
  stack: string,
  folder: string = join(labDir, "state", ".pulumi", "locks", "organization", "k3s-lab", stack),
): Promise<readonly StackLock[]> {
  const files = ((await ifThere(readdir(folder))) ?? []).filter((file) => file.endsWith(".json"));
  return Promise.all(
    files.map(async (name) => {
      const file = join(folder, name);
      const lock = parseLock((await ifThere(readFile(file, "utf8"))) ?? "");
      if (!lock) return { file, pid: 0, host: undefined, alive: false };
      const { pid, hostname: host, timestamp } = lock;
      if (host !== hostname()) return { file, pid, host, alive: true };
      const started = await processStart(pid);
      // A process that began well after the lock did not make it. The clock may have been set since, by which a Pulumi that
      // runs began late.
      const alive =
        started !== undefined && (started <= Date.parse(timestamp) + 2000 || (await isPulumi(pid)));
      return { file, pid, host: undefined, alive };
    }),
  );
}

const isPulumi = async (pid: number): Promise<boolean> =>
  basename((await commandLine({ pid }))[0] ?? "") === "pulumi";

function parseLock(text: string): { pid: number; hostname: string; timestamp: string } | undefined {
  try {
    const { pid, hostname: host, timestamp } = JSON.parse(text) as Record<string, unknown>;
    if (typeof pid !== "number" || typeof host !== "string" || typeof timestamp !== "string")
      return undefined;
    return Number.isNaN(Date.parse(timestamp)) ? undefined : { pid, hostname: host, timestamp };
  } catch {
    return undefined;
  }
}
