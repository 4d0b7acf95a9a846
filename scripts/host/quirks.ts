import { chmod, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { exists } from "../../stacks/lib/files.ts";
import { run } from "./commands.ts";

/** An unusual property of this computer that affects a lab, and its fix. */
export interface Quirk {
  readonly found: string;
  readonly fix?: string;
}

/**
 * Whether programs can be run from a folder; one on a file system mounted `noexec` runs none.
 * @param folder need not exist yet.
 */
export async function runsPrograms(folder: string): Promise<boolean> {
  if (!(await exists(folder))) return await runsPrograms(dirname(folder));
  const own = await mkdtemp(join(folder, "k3s-lab-exec-"));
  try {
    const file = join(own, "try");
    await writeFile(file, "#!/bin/sh\n");
    await chmod(file, 0o700);
    return (await run([file], { timeout: 10_000 })).exitCode === 0;
  } finally {
    await rm(own, { recursive: true, force: true });
  }
}

/** The unusual properties of this computer. */
export async function quirks(): Promise<Quirk[]> {
  const read = (file: string) => readFile(file, "utf8").catch(() => "");
  const found: Quirk[] = [];
  if (/microsoft/i.test(await read("/proc/version")))
    found.push({
      found: "WSL: the lab's addresses answer inside it, not in Windows",
      ...((await read("/proc/1/comm")).trim() === "systemd"
        ? {}
        : { fix: "Enable systemd in /etc/wsl.conf: [boot] systemd=true" }),
    });
  if ((await read("/sys/fs/selinux/enforce")).trim() === "1")
    found.push({
      found:
        "SELinux is enforcing: machines in containers are privileged and not confined by it; none of your files is relabelled",
    });
  if (/^Y/.test(await read("/sys/module/apparmor/parameters/enabled")))
    found.push({ found: "AppArmor is on: machines in containers are privileged and not confined by it" });
  if (!(await runsPrograms(tmpdir())))
    found.push({
      found: `${tmpdir()} is mounted noexec, but builds run programs from it`,
      fix: "export TMPDIR=A_FOLDER_ON_ANOTHER_FILE_SYSTEM",
    });
  return found;
}
