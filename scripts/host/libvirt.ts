import { mkdir, readFile, rm, stat, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { LabError } from "../../stacks/lib/errors.ts";
import { exists } from "../../stacks/lib/files.ts";
import { labId } from "../../stacks/lib/lab-id.ts";
import { cacheDir } from "../../stacks/lib/paths.ts";
import { isRunning, type ProcessId } from "../../stacks/lib/processes.ts";
import type { Progress } from "../../stacks/lib/progress.ts";
import { listMachines } from "../../stacks/observe/machine-list.ts";
import { boxFolder } from "./box.ts";
import { lastLines, type Run, run as runHere } from "./commands.ts";
import { DaemonNotes, endAll, readLog, runDir, type Stopped, startDaemon, untilAnswers } from "./daemon.ts";
import { type Firewall, readFirewall, removeRules } from "./firewall.ts";
import { ensureResources, type LibvirtSpec, removeResources, virshCommand } from "./libvirt-resources.ts";
import { hasSystemd } from "./packages.ts";
import { isRoot, requireRoot } from "./privilege.ts";

/** Coordinates the labs of one user; see `ensureResources` for those of two. */
const sharedDir = isRoot() ? runDir : join(cacheDir, "libvirt");

/** What existed before the lab started its daemon, and must stay. */
interface DaemonRecord {
  readonly daemon: ProcessId;
  readonly rules: Firewall;
  readonly forwarding: string;
  readonly runFolder: boolean;
}

const notesIn = (folder: string) => new DaemonNotes<DaemonRecord>("libvirt", folder);

/**
 * Ensures a libvirt that can create the machines, with the lab's networks and pool: a running daemon, one that systemd
 * starts, or the lab's own (docs/decisions/018-own-libvirt.md).
 * @throws LabError with the problem and the fix.
 */
export async function ensureLibvirt(
  spec: LibvirtSpec,
  progress: Progress,
  run: Run = runHere,
  folder: string = sharedDir,
): Promise<void> {
  const notes = notesIn(folder);
  await notes.alone(async () => {
    await ensureDaemon(progress, run);
    // The machines are created later: until then another lab's `down` would find none and stop the daemon.
    await notes.noteUser();
    const kernel = join(boxFolder(spec.box), "vmlinuz");
    const isSystems = (await notes.record()) === undefined;
    const hidden = isSystems && (await exists(kernel)) ? await hiddenFolder(kernel) : undefined;
    if (hidden !== undefined)
      throw new LabError(
        `QEMU runs as its own user and cannot read ${hidden}, which holds the kernel of Vagrant's box. Allow it, then try again:\n  chmod o+x '${hidden}'`,
      );
    await ensureResources(spec, progress, run);
  }, progress);
}

/** Starts the libvirt that created the machines, if it is not running: Vagrant needs it to destroy them. */
export async function resumeLibvirt(progress: Progress): Promise<void> {
  if (await hasLibvirt(runHere))
    await notesIn(sharedDir).alone(() => ensureDaemon(progress, runHere), progress);
}

/** This user may not use libvirt: its machines are unknown, and other providers do not need it. */
export class LibvirtDenied extends LabError {}

/**
 * Whether there is a libvirt to query for machines.
 * @throws LabError if it exists but does not answer or denies access: its machines may be running.
 */
export async function canAskLibvirt(): Promise<boolean> {
  if (!(await hasLibvirt(runHere))) return false;
  const problem = await unreachable(runHere);
  if (problem === undefined) return true;
  if (/no such file/i.test(problem)) return false;
  if (isDenial(problem))
    throw new LibvirtDenied(
      `You may not use libvirt, so its machines are unknown: ${problem}. None of them is treated as missing. Join its group (sudo usermod -aG libvirt "$USER", then log in again) or become root, then run the same command again.`,
    );
  throw new LabError(
    `libvirt's machines cannot be listed: ${problem}. Check that \`virsh --connect qemu:///system list --all\` answers, then run the same command again.`,
  );
}

/**
 * Whether a machine in libvirt carries this lab's id and a stack's name, regardless of Pulumi's state. Restarts the lab's
 * own daemon if it was killed.
 * @throws LabError if libvirt exists but gives no list.
 */
export async function ownsInLibvirt(stack: string, progress: Progress): Promise<boolean> {
  if ((await notesIn(sharedDir).record()) !== undefined) await resumeLibvirt(progress);
  if (!(await canAskLibvirt())) return false;
  const lab = await labId();
  return (await listMachines("libvirt")).some(({ labels }) => labels.id === lab && labels.stack === stack);
}

/**
 * Removes the lab's networks and pool, and stops the daemon that the lab started; one of systemd's keeps running. Does
 * nothing while another checkout's machines use them, or another `lab` is about to make some. The lab's daemon is started
 * again where it was killed: only it knows which machines still run.
 * @param start for tests.
 * @throws LabError if the lab's daemon does not answer.
 */
export async function stopLibvirt(
  progress: Progress,
  run: Run = runHere,
  folder: string = sharedDir,
  start: () => Promise<void> = () => startOwn(progress, run),
): Promise<Stopped> {
  if (!(await hasLibvirt(run))) return { state: "none" };
  const notes = notesIn(folder);
  return await notes.alone(async () => {
    const users = await notes.otherUsers();
    if (users.length > 0) return { state: "kept", by: users };
    const problem = await unreachable(run);
    if (problem !== undefined) {
      const silent = await notes.record();
      if (silent === undefined) return { state: "none" };
      await refuseHanging(silent, problem);
      await start();
    }
    const by = await removeResources(run);
    if (by.length > 0) return { state: "kept", by };
    const record = await notes.record();
    if (record === undefined) return { state: "none" };
    // The lab's daemon was killed, and another one now uses the same rules and sockets.
    if (!(await isRunning(record.daemon))) {
      await notes.forget();
      return { state: "none" };
    }
    await requireRoot("Stopping the lab's libvirt", ["scripts/lab", "down"], run);
    await stopOwn(record, progress, run);
    await notes.forget();
    return { state: "ended" };
  }, progress);
}

const isDenial = (problem: string): boolean => /permission denied|authentication/i.test(problem);

/** @throws LabError if the lab's daemon runs but does not answer. */
async function refuseHanging({ daemon }: DaemonRecord, problem: string): Promise<void> {
  if (!(await isRunning(daemon))) return;
  throw new LabError(
    `The lab's libvirt daemon (process ${daemon.pid}) does not answer: ${problem}. Its machines may be running, so it was not stopped. If it was suspended, resume it (sudo kill -CONT ${daemon.pid}); otherwise kill it (sudo kill -KILL ${daemon.pid}), which stops no machine. Then run the same command again.`,
  );
}

async function unreachable(run: Run): Promise<string | undefined> {
  const { exitCode, stderr } = await run([...virshCommand, "uri"], { timeout: 15_000 });
  return exitCode === 0 ? undefined : lastLines(stderr, 1) || "it does not answer";
}

async function ensureDaemon(progress: Progress, run: Run): Promise<void> {
  const problem = await unreachable(run);
  if (problem === undefined) return;
  if (isDenial(problem))
    throw new LabError(
      `libvirt is running, but you may not use it: ${problem}. Join its group, log in again, and try again:\n  sudo usermod -aG libvirt "$USER"`,
    );
  if (await hasSystemd()) {
    const start = ["systemctl", "start", "libvirtd"];
    const prefix = await requireRoot("Starting libvirt", start, run);
    progress("starting libvirt");
    const { exitCode, stderr } = await run([...prefix, ...start]);
    if (exitCode !== 0)
      throw new LabError(`libvirt did not start: ${lastLines(stderr)}\nSee journalctl --unit libvirtd.`);
    await untilAnswers("libvirt", () => unreachable(run), {
      log: async () => "See journalctl --unit libvirtd.",
    });
    return;
  }
  if (!isRoot())
    throw new LabError(
      "libvirt is not running, and there is no systemd to start it. Start it as root, or run `lab` as root:\n  sudo libvirtd --daemon",
    );
  const silent = await notesIn(runDir).record();
  if (silent !== undefined) await refuseHanging(silent, problem);
  await startOwn(progress, run);
}

/** Libvirt's folders that the lab's own replace for its daemon. */
const ownFolders = ["/etc/libvirt", "/var/lib/libvirt", "/var/cache/libvirt", "/var/log/libvirt"] as const;

const runFolderOf = "/run/libvirt";

/**
 * QEMU runs as root: as another user it could not read the cache, and libvirt, seeing that root may open a /dev/kvm that
 * the user may not, would probe every QEMU again for each machine, which takes minutes. Cgroups are left as they are.
 */
const qemuConfig = `user = "root"
group = "root"
cgroup_controllers = []
security_driver = "none"
remember_owner = 0
stdio_handler = "file"
`;

async function startOwn(progress: Progress, run: Run): Promise<void> {
  progress("starting the lab's own libvirt daemon");
  const notes = notesIn(runDir);
  // A daemon that was killed left its machines running and its rules: the new one finds them again.
  const before = (await notes.record()) ?? {
    rules: await readFirewall(run),
    forwarding: await readForwarding(),
    runFolder: await exists(runFolderOf),
  };
  const own = (folder: string) => join(cacheDir, "libvirt", folder.slice(1).replaceAll("/", "-"));
  for (const folder of ownFolders) {
    await mkdir(own(folder), { recursive: true });
    await mkdir(folder, { recursive: true });
  }
  await writeFile(join(own("/etc/libvirt"), "qemu.conf"), qemuConfig);
  const mounts = ownFolders.map((folder) => `mount --bind '${own(folder)}' ${folder}`).join(" && ");
  const command = ["unshare", "--mount", "sh", "-c", `${mounts} && exec libvirtd`] as const;
  const daemon = await startDaemon("libvirtd", command);
  await notes.keepRecord({ ...before, daemon });
  await untilAnswers("libvirt", () => unreachable(run), { daemon, log: () => readLog("libvirtd") });
}

async function stopOwn(
  { daemon, rules, forwarding, runFolder }: DaemonRecord,
  progress: Progress,
  run: Run,
): Promise<void> {
  if (await isRunning(daemon)) {
    progress("stopping the lab's libvirt daemon");
    await endAll([daemon], "SIGTERM");
  }
  // The networks are gone; their empty chains remain.
  await removeRules(rules, (line) => /(^:|^-A | -j )LIBVIRT_/.test(line), run);
  if ((await readForwarding()) !== forwarding) await writeFile(forwardingFile, forwarding);
  if (!runFolder) await rm(runFolderOf, { recursive: true, force: true });
}

const forwardingFile = "/proc/sys/net/ipv4/ip_forward";
const readForwarding = (): Promise<string> => readFile(forwardingFile, "utf8").catch(() => "0\n");

/** The outermost folder above a file that other users may not enter. */
export async function hiddenFolder(file: string): Promise<string | undefined> {
  const above = dirname(file);
  if (above === file) return undefined;
  return (await hiddenFolder(above)) ?? (((await stat(above)).mode & 0o001) === 0 ? above : undefined);
}

/** Whether libvirt is installed; otherwise there is nothing to stop. */
const hasLibvirt = async (run: Run): Promise<boolean> =>
  (await run(["virsh", "--version"], { timeout: 15_000 })).ended !== "missing";
