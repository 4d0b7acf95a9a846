import { mkdir, mkdtemp, readFile, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { LabError } from "../../stacks/lib/errors.ts";
import { exists } from "../../stacks/lib/files.ts";
import { labId } from "../../stacks/lib/lab-id.ts";
import { cacheDir } from "../../stacks/lib/paths.ts";
import { isRunning, type ProcessId } from "../../stacks/lib/processes.ts";
import type { Progress } from "../../stacks/lib/progress.ts";
import { providers } from "../../stacks/model/provider.ts";
import { listMachines } from "../../stacks/observe/machine-list.ts";
import { withFileLock } from "../toolchain/file-lock.ts";
import { type Box, boxFolder } from "./box.ts";
import { overlap } from "./cidr.ts";
import { lastLines, type Run, run as runHere } from "./commands.ts";
import { type Stopped, signal, startDaemon, untilAnswers, untilEnded } from "./daemon.ts";
import { type Firewall, readFirewall, removeRules } from "./firewall.ts";
import { ensurePackages, hasSystemd } from "./packages.ts";
import { isRoot, requireRoot } from "./privilege.ts";
import { routesHere, withoutBlackholeRoute } from "./routes.ts";
import { noteUser, otherUsers } from "./users.ts";

const runDir = "/run/k3s-lab";
const stateFile = join(runDir, "libvirt.json");
const logFile = join(cacheDir, "log", "libvirtd.log");

/** Holds the lock and the notes by which the labs of this computer, else of this user, stay out of each other's way. */
const sharedDir = isRoot() ? runDir : join(cacheDir, "libvirt");
const usersOf = (folder: string): string => join(folder, "libvirt-users");

/** Runs work while no other lab makes or ends networks, pool and daemon. */
const withLibvirt = <T>(folder: string, work: () => Promise<T>, progress: Progress): Promise<T> =>
  withFileLock(join(folder, "libvirt.lock"), work, { progress });

/** The pool of the machines' disks; the Vagrantfile names it too. */
export const pool = "k3s-lab";

/** The network of Vagrant's own way to the machines, their eth0; the Vagrantfile names it too. */
export const managementNetwork = { name: "k3s-lab-management", network: "192.168.119.0/24" } as const;

/** What is asked of libvirt. */
export interface LibvirtWish {
  /** The machines' network, such as 192.168.42.0/24; its first address is this computer's. */
  readonly network: string;
  /** Whether machines may reach what this computer reaches; else nothing of theirs leaves it. */
  readonly internet: boolean;
  /** The box whose disk the machines' disks begin as. */
  readonly box: Box;
}

/** What `stopLibvirt` needs to know of the daemon that the lab started. */
interface DaemonRecord {
  readonly daemon: ProcessId;
  /** What was there before it, and stays. */
  readonly rules: Firewall;
  readonly forwarding: string;
  readonly runFolder: boolean;
}

/**
 * A libvirt that can make the machines: with the lab's networks, and its pool with the box's disk in it. A daemon that
 * answers is used as it is; otherwise systemd starts it, or, where none runs, it is started as a daemon of the lab's
 * own that sees folders of the lab in place of /etc/libvirt, /var/lib/libvirt and the like.
 *
 * @throws LabError where libvirt runs in no such way: what is in the way, and what to do.
 */
export async function ensureLibvirt(
  wish: LibvirtWish,
  progress: Progress,
  run: Run = runHere,
  folder: string = sharedDir,
): Promise<void> {
  await ensurePackages(providers.libvirt.packages, progress);
  await withLibvirt(folder, () => prepare(wish, progress, run, folder), progress);
}

async function prepare(wish: LibvirtWish, progress: Progress, run: Run, folder: string): Promise<void> {
  await ensureDaemon(progress, run);
  // Its machines come later, and until then another lab's `down` would find none.
  await noteUser(usersOf(folder));
  const kernel = join(boxFolder(wish.box), "vmlinuz");
  const hidden = (await readRecord()) === undefined && (await exists(kernel)) && (await hiddenFolder(kernel));
  if (hidden)
    throw new LabError(
      `QEMU runs as its own user and cannot read ${hidden}, which holds the kernel of Vagrant's box. Allow it, then try again:\n  chmod o+x '${hidden}'`,
    );
  progress("making libvirt's networks");
  const make = async () => {
    for (const [name, xml] of networks(wish))
      await ensureNetwork(name, xml, name === labNetwork ? wish.network : managementNetwork.network, run);
  };
  if (!(await isNetwork(labNetwork, run)) || !(await isNetwork(managementNetwork.name, run)))
    await withoutBlackholeRoute(wish.network, make, { run });
  await ensurePool(run);
  await ensureVolume(wish.box, progress, run);
}

/** Starts the libvirt that made machines, if it does not run: Vagrant cannot destroy them without it. */
export async function resumeLibvirt(progress: Progress, run: Run = runHere): Promise<void> {
  if (await hasLibvirt(run)) await withLibvirt(sharedDir, () => ensureDaemon(progress, run), progress);
}

/**
 * Whether there is a libvirt to ask for machines. One that is not there, or does not let this user in, has none of ours.
 * @throws LabError where it is there and does not answer: its machines may be running.
 */
export async function canAskLibvirt(): Promise<boolean> {
  if (!(await hasLibvirt())) return false;
  const problem = await unreachable(runHere);
  if (problem === undefined) return true;
  if (/no such file|permission denied|authentication/i.test(problem)) return false;
  throw new LabError(
    `What machines libvirt has cannot be told: ${problem}. See that \`virsh --connect qemu:///system list --all\` answers, then run the same command again.`,
  );
}

/**
 * Whether a machine in libvirt carries this lab's id and a stack's name, whatever Pulumi knows of it. A daemon of the lab's
 * own that was killed is started again.
 *
 * @throws LabError where libvirt is there and gives no list.
 */
export async function ownsInLibvirt(stack: string, progress: Progress): Promise<boolean> {
  if ((await readRecord()) !== undefined) await resumeLibvirt(progress);
  if (!(await canAskLibvirt())) return false;
  const lab = await labId();
  return (await listMachines("libvirt")).some(({ marks }) => marks.id === lab && marks.stack === stack);
}

/**
 * Takes away the lab's networks and pool, and ends the daemon that the lab started; one of the system's goes on.
 * Does nothing where machines of another checkout use them, or another `lab` is about to make some.
 */
export async function stopLibvirt(
  progress: Progress,
  run: Run = runHere,
  folder: string = sharedDir,
): Promise<Stopped> {
  if (!(await hasLibvirt(run))) return { state: "none" };
  return await withLibvirt(folder, () => stopUnused(progress, run, folder), progress);
}

async function stopUnused(progress: Progress, run: Run, folder: string): Promise<Stopped> {
  const users = await otherUsers(usersOf(folder));
  if (users.length > 0) return { state: "kept", by: users };
  if ((await unreachable(run)) === undefined) {
    const by = await domains(run);
    if (by.length > 0) return { state: "kept", by };
    for (const name of [labNetwork, managementNetwork.name]) await virsh(run, "net-destroy", name);
    const { stdout } = await virsh(run, "vol-list", pool);
    for (const name of volumeNames(stdout)) await virsh(run, "vol-delete", "--pool", pool, name);
    await virsh(run, "pool-destroy", pool);
  }
  const record = await readRecord();
  if (record === undefined) return { state: "none" };
  await requireRoot("Stopping the lab's libvirt", ["scripts/lab", "down"], run);
  await stopOwn(record, progress, run);
  return { state: "ended" };
}

/** The domains that the lab made, of whichever checkout. */
async function domains(run: Run): Promise<string[]> {
  const { exitCode, stdout, stderr } = await virsh(run, "list", "--all", "--name");
  if (exitCode !== 0)
    throw new LabError(
      `libvirt cannot be asked for its machines: ${lastLines(stderr, 1)}. Its networks and pool stay, as machines may use them. Run \`scripts/lab down\` again.`,
    );
  return stdout.split("\n").filter((name) => name.startsWith("k3s-lab-"));
}

const virsh = (run: Run, ...args: string[]) =>
  run(["virsh", "--connect", "qemu:///system", "--quiet", ...args], { timeout: 120_000 });

/** Why no daemon answers, or undefined where one does. */
async function unreachable(run: Run): Promise<string | undefined> {
  const { exitCode, stderr } = await run(["virsh", "--connect", "qemu:///system", "--quiet", "uri"], {
    timeout: 15_000,
  });
  return exitCode === 0 ? undefined : lastLines(stderr, 1) || "it does not answer";
}

const labNetwork = "k3s-lab";

const isNetwork = async (name: string, run: Run): Promise<boolean> =>
  (await virsh(run, "net-info", name)).exitCode === 0;

/** The lab's networks as libvirt's XML, by name; they end with the daemon or with `net-destroy`. */
export function networks({ network, internet }: LibvirtWish): (readonly [name: string, xml: string])[] {
  const xml = (name: string, cidr: string, forward: boolean, dhcp: boolean) => {
    const [base = "", bits] = cidr.split("/");
    // vagrant-libvirt finds networks by their netmask and reads no prefix.
    const netmask = dotted(2 ** 32 - 2 ** (32 - Number(bits)));
    const host = (last: number) => base.replace(/\d+$/, String(last));
    const range = dhcp ? `<dhcp><range start="${host(2)}" end="${host(254)}"/></dhcp>` : "";
    return `<network><name>${name}</name>${forward ? '<forward mode="nat"/>' : ""}<bridge stp="off" delay="0"/><ip address="${firstHost(cidr)}" netmask="${netmask}">${range}</ip></network>`;
  };
  const { name, network: management } = managementNetwork;
  return [
    [name, xml(name, management, internet, true)],
    [labNetwork, xml(labNetwork, network, false, false)],
  ];
}

/** The first address of a network: this computer's. */
function firstHost(cidr: string): string {
  const [base = "", bits = "32"] = cidr.split("/");
  const value = base.split(".").reduce((sum, part) => sum * 256 + Number(part), 0);
  const size = 2 ** (32 - Number(bits));
  const first = value - (value % size) + 1;
  return dotted(first);
}

const dotted = (address: number): string =>
  [24, 16, 8, 0].map((shift) => Math.floor(address / 2 ** shift) % 256).join(".");

/** Makes a network that is not there; it lasts until it is destroyed, and is written down nowhere. */
async function ensureNetwork(name: string, xml: string, network: string, run: Run): Promise<void> {
  if (await isNetwork(name, run)) return;
  // virsh reads files only: it opens its input again, which a socket does not let it.
  const folder = await mkdtemp(join(tmpdir(), "k3s-lab-network-"));
  try {
    const file = join(folder, `${name}.xml`);
    await writeFile(file, xml);
    const { exitCode, stderr } = await virsh(run, "net-create", file);
    if (exitCode !== 0)
      throw new LabError(
        `libvirt could not make the network ${name}: ${lastLines(stderr, 3)}${/already in use by interface/.test(stderr) ? await inTheWay(network, run) : ""}`,
      );
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

/**
 * The routes that libvirt takes for somebody's use of a network, and what to do. It names their interface, and one that
 * leads nowhere has none: "Network is already in use by interface *".
 */
export async function inTheWay(network: string, run: Run): Promise<string> {
  const routes = (await routesHere(run)).filter(({ dst }) => overlap(dst, network));
  if (routes.length === 0) return "";
  const shown = routes.map(({ type, dst, dev, metric }) =>
    [type, dst, ...(dev ? ["dev", dev] : []), ...(metric ? ["metric", metric] : [])]
      .filter(Boolean)
      .join(" "),
  );
  return `\nIn its way: ${shown.map((route) => `the route "${route}"`).join(", ")}. If you do not need it while the lab is up, remove it:\n${shown.map((route) => `  sudo ip route del ${route}`).join("\n")}\nOtherwise set another k3s-lab:network.`;
}

async function ensurePool(run: Run): Promise<void> {
  if ((await virsh(run, "pool-info", pool)).exitCode === 0) return;
  const { exitCode, stderr } = await virsh(
    run,
    ...["pool-create-as", pool, "dir", "--build", "--target", "/var/lib/libvirt/images/k3s-lab"],
  );
  if (exitCode !== 0) throw new LabError(`libvirt could not make the pool ${pool}: ${lastLines(stderr, 3)}`);
}

/** The name by which vagrant-libvirt looks for a box's disk before it uploads it. */
export const volumeName = ({ name, version }: Box): string =>
  `${name.replaceAll("/", "-VAGRANTSLASH-")}_vagrant_box_image_${version}_box.img`;

/** Names in a list of `virsh vol-list`. */
export const volumeNames = (text: string): string[] =>
  text
    .split("\n")
    .map((line) => line.trim().split(/\s+/)[0] ?? "")
    .filter(Boolean);

/**
 * Puts the box's disk into the pool. Vagrant would, but two of them at once, a machine each, are in each other's way.
 * A box of several disks is left to Vagrant.
 */
async function ensureVolume(box: Box, progress: Progress, run: Run): Promise<void> {
  const name = volumeName(box);
  if ((await virsh(run, "vol-info", "--pool", pool, name)).exitCode === 0) return;
  const file = join(boxFolder(box), "box.img");
  const { virtual_size } = await metadata(box);
  if (virtual_size === undefined) return;
  progress("copying the box's disk");
  const steps = [
    ["vol-create-as", pool, name, `${virtual_size}G`, "--format", "qcow2", "--allocation", "0"],
    ["vol-upload", "--pool", pool, name, file],
  ];
  for (const step of steps) {
    const { exitCode, stderr } = await virsh(run, ...step);
    if (exitCode === 0) continue;
    await virsh(run, "vol-delete", "--pool", pool, name);
    throw new LabError(`libvirt could not take the disk of the box ${box.name}: ${lastLines(stderr, 3)}`);
  }
}

async function metadata(box: Box): Promise<{ readonly virtual_size?: number }> {
  return JSON.parse(await readFile(join(boxFolder(box), "metadata.json"), "utf8")) as {
    virtual_size?: number;
  };
}

async function ensureDaemon(progress: Progress, run: Run): Promise<void> {
  const problem = await unreachable(run);
  if (problem === undefined) return;
  if (/permission denied|authentication/i.test(problem))
    throw new LabError(
      `libvirt is running, but you may not use it: ${problem}. Join its group, log in again, and try again:\n  sudo usermod -aG libvirt "$USER"`,
    );
  if (await hasSystemd()) {
    const start = ["systemctl", "start", "libvirtd"];
    const prefix = await requireRoot("Starting libvirt", start, run);
    progress("starting libvirt");
    const { exitCode, stderr } = await run([...prefix, ...start]);
    if (exitCode !== 0)
      throw new LabError(`libvirt does not start: ${lastLines(stderr)}\nSee journalctl --unit libvirtd.`);
    await untilReachable(() => true, run);
    return;
  }
  if (!isRoot())
    throw new LabError(
      "libvirt is not running, and there is no systemd to start it. Start it as root, or run `lab` as root:\n  sudo libvirtd --daemon",
    );
  await launch(progress, run);
}

/** Folders of libvirt's that its daemon finds the lab's in place of. */
const ownFolders = ["/etc/libvirt", "/var/lib/libvirt", "/var/cache/libvirt", "/var/log/libvirt"] as const;

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

async function launch(progress: Progress, run: Run): Promise<void> {
  progress("starting the lab's own libvirt daemon");
  await mkdir(runDir, { recursive: true, mode: 0o700 });
  // A daemon that was killed left its machines running and its rules: the new one finds them again.
  const { rules, forwarding, runFolder } = (await readRecord()) ?? {
    rules: await readFirewall(run),
    forwarding: await readForwarding(),
    runFolder: await exists(runFolderOf),
  };
  const base = join(cacheDir, "libvirt");
  const own = (folder: string) => join(base, folder.slice(1).replaceAll("/", "-"));
  for (const folder of ownFolders) {
    await mkdir(own(folder), { recursive: true });
    await mkdir(folder, { recursive: true });
  }
  await writeFile(join(own("/etc/libvirt"), "qemu.conf"), qemuConfig);
  const mounts = ownFolders.map((folder) => `mount --bind '${own(folder)}' ${folder}`).join(" && ");
  const command = ["unshare", "--mount", "sh", "-c", `${mounts} && exec libvirtd`] as const;
  const daemon = await startDaemon("libvirtd", command, logFile);
  const record: DaemonRecord = { daemon, rules, forwarding, runFolder };
  await writeFile(stateFile, JSON.stringify(record), { mode: 0o600 });
  await untilReachable(() => isRunning(daemon), run);
}

const untilReachable = (alive: () => boolean | Promise<boolean>, run: Run): Promise<void> =>
  untilAnswers({
    name: "libvirt",
    problem: () => unreachable(run),
    alive,
    log: () => readFile(logFile, "utf8"),
  });

async function readRecord(): Promise<DaemonRecord | undefined> {
  try {
    return JSON.parse(await readFile(stateFile, "utf8")) as DaemonRecord;
  } catch {
    return undefined;
  }
}

async function stopOwn(
  { daemon, rules, forwarding, runFolder }: DaemonRecord,
  progress: Progress,
  run: Run,
): Promise<void> {
  if (await isRunning(daemon)) {
    progress("stopping the lab's libvirt daemon");
    signal(daemon.pid, "SIGTERM");
    await untilEnded([daemon]);
  }
  // The networks are gone; their chains stay, empty.
  await removeRules(rules, (line) => /(^:|^-A | -j )LIBVIRT_/.test(line), run);
  if ((await readForwarding()) !== forwarding) await writeFile(forwardingFile, forwarding);
  if (!runFolder) await rm(runFolderOf, { recursive: true, force: true });
  await rm(stateFile, { force: true });
}

const forwardingFile = "/proc/sys/net/ipv4/ip_forward";
const readForwarding = (): Promise<string> => readFile(forwardingFile, "utf8").catch(() => "0\n");

/** The outermost folder above a file that other users may not look into. */
export async function hiddenFolder(file: string): Promise<string | undefined> {
  const above = dirname(file);
  const outer = above === file ? undefined : await hiddenFolder(above);
  if (outer !== undefined || above === file) return outer;
  return ((await stat(above)).mode & 0o001) === 0 ? above : undefined;
}

/** Where libvirt keeps its sockets and what it knows of running machines. */
const runFolderOf = "/run/libvirt";

/** Whether libvirt is installed at all; where it is not, there is nothing of it to stop. */
const hasLibvirt = async (run: Run = runHere): Promise<boolean> =>
  (await run(["virsh", "--version"], { timeout: 15_000 })).ended !== "missing";
