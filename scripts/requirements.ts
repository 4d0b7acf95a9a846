import { access, constants, mkdir, readFile, statfs } from "node:fs/promises";
import { freemem } from "node:os";
import { dirname } from "node:path";
import { refusal } from "../stacks/lib/errors.ts";
import { cacheDir, labDir } from "../stacks/lib/paths.ts";
import { allMachines, type ClusterConfig } from "../stacks/model/config.ts";

const GiB = 1024 ** 3;
const MiB = 1024 ** 2;

/** Free disk that tools, images and machines need from an empty cache; K3s evicts pods when a disk is nearly full. */
const diskNeeded = 8 * GiB;

/** inotify instances that a containerized machine uses on this computer; counted with K3s v1.25.4, systemd included. */
const inotifyOf = { server: 24, agent: 12, loadbalancer: 6 } as const;

/** A computer's resources, in bytes. */
export interface HostFacts {
  /** The limit of inotify instances per user; unknown if containers do not run on this kernel. */
  readonly inotifyInstances?: number | undefined;
  readonly memoryAvailable: number;
  readonly diskFree: number;
}

/** What a cluster needs of this computer; a k3d cluster reserves no memory. */
type Requirements = Pick<ClusterConfig, "machines"> &
  Partial<Pick<ClusterConfig, "provider" | "loadBalancer">>;

/** Why this computer cannot run a cluster, one sentence each with the fix; empty if it can. */
export function missingRequirements(config: Requirements, facts: HostFacts): string[] {
  const { provider } = config;
  const machines = allMachines(config);
  const faults: string[] = [];
  const wanted = machines.reduce((sum, { memory = 0 }) => sum + memory * MiB, 0);
  if (wanted > facts.memoryAvailable)
    faults.push(
      `The machines need ${gib(wanted)} of memory and ${gib(facts.memoryAvailable)} is available: lower \`memory\` in the stack file, or stop other programs.`,
    );
  if (facts.diskFree < diskNeeded)
    faults.push(
      `${cacheDir} has ${gib(facts.diskFree)} free and the lab needs ${gib(diskNeeded)}: free some disk, or set K3S_LAB_CACHE to a folder on another.`,
    );
  const { inotifyInstances = Number.POSITIVE_INFINITY } = facts;
  const watching = machines.reduce((sum, { role }) => sum + inotifyOf[role], 0);
  if ((provider === "docker" || provider === "auto") && watching > inotifyInstances)
    faults.push(
      `${machines.length} machines in containers take ${watching} inotify instances and this computer allows ${inotifyInstances}, without which K3s does not start: sysctl fs.inotify.max_user_instances=${2 ** Math.ceil(Math.log2(watching + 1))}`,
    );
  return faults;
}

/**
 * Refuses, before anything is touched, a cluster that this computer cannot hold.
 * @throws LabError (exit code 2) with every reason.
 */
export async function checkRequirements(config: Requirements = { machines: [] }): Promise<void> {
  for (const folder of [labDir, cacheDir]) await checkWritable(folder);
  const faults = missingRequirements(config, await hostFacts());
  if (faults.length) throw refusal(faults.join("\n"));
}

async function checkWritable(folder: string): Promise<void> {
  try {
    await mkdir(folder, { recursive: true, mode: 0o700 });
    await access(folder, constants.W_OK);
  } catch (cause) {
    throw refusal(
      `${folder} cannot be written: ${(cause as Error).message}. Make it writable and try again.`,
      cause,
    );
  }
}

export async function hostFacts(): Promise<HostFacts> {
  const { bavail, bsize } = await statfs(await existing(cacheDir));
  const instances = await readFile("/proc/sys/fs/inotify/max_user_instances", "utf8").catch(() => undefined);
  return {
    inotifyInstances: instances === undefined ? undefined : Number(instances),
    memoryAvailable: await memoryAvailable(),
    diskFree: bavail * bsize,
  };
}

/** The folder, or its nearest existing ancestor. */
async function existing(folder: string): Promise<string> {
  return access(folder).then(
    () => folder,
    () => existing(dirname(folder)),
  );
}

/** Linux counts reclaimable caches as available memory; elsewhere only free memory is known. */
async function memoryAvailable(): Promise<number> {
  const text = await readFile("/proc/meminfo", "utf8").catch(() => "");
  const kib = /^MemAvailable:\s+(\d+) kB$/m.exec(text)?.[1];
  return kib === undefined ? freemem() : Number(kib) * 1024;
}

const gib = (bytes: number): string => `${(bytes / GiB).toFixed(1)} GiB`;
