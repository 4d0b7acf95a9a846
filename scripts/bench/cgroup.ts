import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";

/**
 * The folder of a container's cgroup, with all cgroups that its processes have made below it. K3s and systemd move their
 * processes into such; `/proc/PID/cgroup` then names one of them.
 *
 * @param id of the container, in full.
 * @param cgroup the text of `/proc/PID/cgroup` of a process in it.
 * @param mountinfo the text of `/proc/self/mountinfo`.
 * @returns undefined where this computer shows no such cgroup.
 */
export function cgroupFolder(id: string, cgroup: string, mountinfo: string): string | undefined {
  // Version 1 has a hierarchy for each controller; the one of version 2 has number 0 and no names.
  const lines = cgroup.split("\n").map((line) => /^\d+:([^:]*):(.*)$/.exec(line));
  const ofMemory = lines.find((line) => line?.[1]?.split(",").includes("memory"));
  const path = (ofMemory ?? lines.find((line) => line?.[1] === ""))?.[2];
  const own = path === undefined ? undefined : new RegExp(`^.*?${id}[^/]*`).exec(path)?.[0];
  if (own === undefined) return undefined;
  for (const line of mountinfo.split("\n")) {
    const [before = "", after = ""] = line.split(" - ");
    const [, , , mountRoot = "", mountPoint = ""] = before.split(" ");
    const [type = "", , options = ""] = after.split(" ");
    const fits = ofMemory ? type === "cgroup" && options.split(",").includes("memory") : type === "cgroup2";
    if (!fits) continue;
    const inside = mountRoot === "/" ? own : own.startsWith(`${mountRoot}/`) && own.slice(mountRoot.length);
    if (inside) return join(mountPoint, inside);
  }
  return undefined;
}

/**
 * Bytes of memory in use, as Kubernetes counts its working set: all but the files that the kernel would drop first.
 * @param folder of a cgroup; those below it count too.
 */
export async function workingSet(folder: string): Promise<number> {
  const read = (name: string) => readFile(join(folder, name), "utf8");
  const usage = await read("memory.current").catch(() => read("memory.usage_in_bytes"));
  const stat = await read("memory.stat");
  // Version 1 counts the cgroups below in lines of their own.
  const inactive = /^total_inactive_file (\d+)$/m.exec(stat) ?? /^inactive_file (\d+)$/m.exec(stat);
  return Math.max(0, Number(usage) - Number(inactive?.[1] ?? 0));
}

/** How many processes are in a cgroup and in those below it; one that goes away meanwhile has none. */
export async function countProcesses(folder: string): Promise<number> {
  const [text, entries] = await Promise.all([
    readFile(join(folder, "cgroup.procs"), "utf8").catch(() => ""),
    readdir(folder, { withFileTypes: true }).catch(() => []),
  ]);
  const below = entries.filter((entry) => entry.isDirectory());
  const counts = await Promise.all(below.map(({ name }) => countProcesses(join(folder, name))));
  return counts.reduce((sum, count) => sum + count, text.split("\n").filter(Boolean).length);
}
