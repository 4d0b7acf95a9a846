import { mkdir, readdir, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { isRunning, processId } from "../../stacks/lib/processes.ts";

/**
 * Notes that this process is at work with a daemon that other labs may end: it has nothing in it yet that would keep them
 * from that. The note counts as long as the process lives.
 *
 * @param folder holds the daemon's notes, a file a process.
 */
export async function noteUser(folder: string): Promise<void> {
  const self = await processId(process.pid);
  if (!self) return;
  await mkdir(folder, { recursive: true, mode: 0o700 });
  await writeFile(join(folder, `${self.pid}-${self.startTime}`), "");
}

/** Other processes that are at work with the daemon, as a person is told of them. */
export async function otherUsers(folder: string): Promise<string[]> {
  const others: string[] = [];
  for (const name of await readdir(folder).catch(() => [])) {
    const [pid = "", startTime = ""] = name.split("-");
    if (!(await isRunning({ pid: Number(pid), startTime }))) await rm(join(folder, name), { force: true });
    else if (Number(pid) !== process.pid) others.push(`process ${pid} (lab)`);
  }
  return others;
}
