import { readFile } from "node:fs/promises";
import { tmpdir, userInfo } from "node:os";
import { LabError } from "../../stacks/lib/errors.ts";
import { cacheDir } from "../../stacks/lib/paths.ts";
import type { Progress } from "../../stacks/lib/progress.ts";
import { type Run, run as runHere } from "./commands.ts";
import { ensurePackages } from "./packages.ts";
import { isRoot } from "./privilege.ts";
import { runsPrograms } from "./quirks.ts";

export interface BootstrapHost {
  readonly run: Run;
  readonly root: boolean;
  readonly user: { readonly name: string; readonly uid: number };
  readonly read: (file: string) => Promise<string>;
  readonly runsPrograms: (folder: string) => Promise<boolean>;
}

const thisHost = (): BootstrapHost => ({
  run: runHere,
  root: isRoot(),
  user: { name: userInfo().username, uid: userInfo().uid },
  read: (file) => readFile(file, "utf8").catch(() => ""),
  runsPrograms,
});

/**
 * How mmdebstrap builds Debian here: as root, or in a user namespace, whose root is an ordinary user outside.
 * @returns its mode, and the folder to work in.
 * @throws LabError with what a user namespace lacks and the command that fixes it.
 */
export async function bootstrapMode(
  progress: Progress,
  host: BootstrapHost = thisHost(),
  install: (names: readonly string[], progress: Progress) => Promise<void> = ensurePackages,
): Promise<{ readonly mode: "root" | "unshare"; readonly folder: string }> {
  // Other distributions lack Debian's signing keys.
  await install(["mmdebstrap", "debian-archive-keyring"], progress);
  const mode = host.root ? "root" : "unshare";
  // The root of a user namespace may not read a home directory.
  const folder = host.root ? cacheDir : tmpdir();
  if (!(await host.runsPrograms(folder)))
    throw new LabError(
      `${folder} is mounted noexec, but building a Debian system runs programs from it. Set ${host.root ? "K3S_LAB_CACHE" : "TMPDIR"} to a folder on another file system.`,
    );
  if (host.root) return { mode, folder };
  await install(["uidmap"], progress);
  const { name, uid } = host.user;
  const isThere = (text: string) =>
    text.split("\n").some((line) => line.startsWith(`${name}:`) || line.startsWith(`${uid}:`));
  for (const file of ["/etc/subuid", "/etc/subgid"])
    if (!isThere(await host.read(file)))
      throw new LabError(
        `${name} has no subordinate ids in ${file}, which building Debian without root needs. Add them, or run \`sudo scripts/lab up\`:\n  sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 ${name}`,
      );
  const { exitCode } = await host.run(["unshare", "--user", "--map-root-user", "true"], { timeout: 15_000 });
  if (exitCode === 0) return { mode, folder };
  const isAppArmor = /^1/.test(await host.read("/proc/sys/kernel/apparmor_restrict_unprivileged_userns"));
  const setting = isAppArmor
    ? "kernel.apparmor_restrict_unprivileged_userns=0"
    : /^0/.test(await host.read("/proc/sys/kernel/unprivileged_userns_clone"))
      ? "kernel.unprivileged_userns_clone=1"
      : "user.max_user_namespaces=15000";
  throw new LabError(
    `This computer allows only root to create user namespaces, which building Debian needs. Allow it, or run \`sudo scripts/lab up\`:\n  sudo sysctl -w ${setting}`,
  );
}
