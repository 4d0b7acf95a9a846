import { mkdtemp, readFile, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { LabError, refusal } from "../../stacks/lib/errors.ts";
import { ifThere } from "../../stacks/lib/files.ts";
import type { Progress } from "../../stacks/lib/progress.ts";
import {
  blockOf,
  managementNetwork as managementBlock,
  type Network,
  overlap,
  toText,
} from "../../stacks/model/addresses.ts";
import { type Box, boxFolder } from "./box.ts";
import { type CommandResult, lastLines, type Run } from "./commands.ts";
import { routesHere, withoutBlackholeRoute } from "./routes.ts";

// The Vagrantfile uses the same names.
const labNetwork = "k3s-lab";
const managementNetwork = "k3s-lab-management";
type NetworkName = typeof labNetwork | typeof managementNetwork;
const pool = "k3s-lab";
const poolFolder = "/var/lib/libvirt/images/k3s-lab";

export interface LibvirtSpec {
  /** The machines' network, such as 192.168.42.0/24; its first address is this computer's. */
  readonly network: string;
  /** Whether machines may reach what this computer reaches; otherwise their traffic stays on it. */
  readonly internet: boolean;
  /** The box whose disk is the base of the machines' disks. */
  readonly box: Box;
}

export const virshCommand = ["virsh", "--connect", "qemu:///system", "--quiet"] as const;

/** Milliseconds for short commands, and for copying gigabytes on a slow disk. */
const [momentsWithin, uploadWithin] = [120_000, 1_800_000];

const virsh = (run: Run, ...args: string[]) =>
  run([...virshCommand, ...args], { timeout: args[0] === "vol-upload" ? uploadWithin : momentsWithin });

/**
 * Creates the lab's networks, and its pool with the box's disk, if missing. The lab's network comes
 * first and goes last: its creator owns all the rest.
 * @throws LabError (exit code 2) if they are another user's.
 */
export async function ensureResources(spec: LibvirtSpec, progress: Progress, run: Run): Promise<void> {
  progress("creating libvirt's networks");
  if ((await ownerOf(run)) === undefined)
    await withoutBlackholeRoute(spec.network, () => makeNetwork(labNetwork, spec, run), { run });
  const owner = await ownerOf(run);
  if (owner === undefined)
    throw new LabError(`The network ${labNetwork} has just been removed. Run the same command again.`);
  if (owner !== thisUser())
    throw refusal(
      `Another user of this computer (id ${owner}) has a lab in libvirt, whose networks and disks have the same names: each lab would remove what the other uses. Have that user run \`scripts/lab down\`, or set another k3s-lab:provider.`,
    );
  if ((await virsh(run, "net-info", managementNetwork)).exitCode !== 0)
    await makeNetwork(managementNetwork, spec, run);
  await ensurePool(run);
  await ensureVolume(spec.box, progress, run);
}

/** Removes the lab's networks and pool if no machine uses them. @returns the machines that do. */
export async function removeResources(run: Run): Promise<readonly string[]> {
  const owner = await ownerOf(run);
  if (owner !== undefined && owner !== thisUser()) return [`the lab of another user (id ${owner})`];
  const all = await machinesHere(run);
  // Of any checkout.
  const machines = all.filter((name) => name.startsWith("k3s-lab-"));
  if (machines.length > 0 || owner === undefined) return machines;
  const others = await usersAmong(all, run);
  if (others.length > 0) return others;
  const volumes = await virsh(run, "vol-list", pool);
  if (volumes.exitCode !== 0 && !isNoPool(volumes))
    throw new LabError(
      `libvirt did not list the disks in its pool ${pool}, so they stay: ${lastLines(volumes.stderr, 1)}. Run \`scripts/lab down\` again.`,
    );
  for (const name of volumeNames(volumes.stdout).filter((name) => ownVolume.test(name))) {
    const removed = await virsh(run, "vol-delete", "--pool", pool, name);
    if (removed.exitCode !== 0 && !/volume not found/i.test(removed.stderr))
      throw new LabError(
        `libvirt did not remove the disk ${name} of its pool ${pool}: ${lastLines(removed.stderr, 1)}. Run \`scripts/lab down\` again.`,
      );
  }
  await virsh(run, "pool-destroy", pool);
  for (const name of [managementNetwork, labNetwork]) await virsh(run, "net-destroy", name);
  return [];
}

/** The names of all machines in libvirt. @throws LabError if it does not list them. */
async function machinesHere(run: Run): Promise<string[]> {
  const { exitCode, stdout, stderr } = await virsh(run, "list", "--all", "--name");
  if (exitCode !== 0)
    throw new LabError(
      `libvirt did not list its machines: ${lastLines(stderr, 1)}. Its networks and pool stay, because machines may use them. Run the same command again.`,
    );
  return stdout.split("\n").filter(Boolean);
}

/** The disks of boxes, as `ensureVolume` names them, and of machines. Anything else in the pool is someone else's. */
const ownVolume = /_vagrant_box_image_|^k3s-lab-.*\.img$/;

/**
 * The machines that have a disk in the lab's pool or are in its network: clones and renamed machines are based on the
 * box's disk too.
 * @throws LabError if libvirt does not describe one.
 */
async function usersAmong(machines: readonly string[], run: Run): Promise<string[]> {
  const uses = await Promise.all(
    machines.map(async (name) => {
      const { exitCode, stdout, stderr } = await virsh(run, "dumpxml", name);
      if (exitCode === 0) return stdout.includes(`${poolFolder}/`) || /network=['"]k3s-lab/.test(stdout);
      if (/domain not found|failed to get domain/i.test(stderr)) return false;
      throw new LabError(
        `libvirt does not say whether ${name} uses the lab's disks and networks, which therefore stay: ${lastLines(stderr, 1)}. Run \`scripts/lab down\` again.`,
      );
    }),
  );
  return machines.filter((_, index) => uses[index]);
}

/** A network's creator chooses its UUID: the lab's begins with this and ends with the user's id. */
const uuidPrefix = "6b33732d-6c61-4200-8000-";

/** The user whose lab created the lab's network; undefined if libvirt says that there is none. */
async function ownerOf(run: Run): Promise<number | undefined> {
  const { exitCode, stdout, stderr } = await virsh(run, "net-uuid", labNetwork);
  if (/network not found/i.test(stderr)) return undefined;
  if (exitCode !== 0)
    throw new LabError(`libvirt does not say who owns the network ${labNetwork}: ${lastLines(stderr, 1)}`);
  const uuid = stdout.trim();
  return uuid.startsWith(uuidPrefix) ? Number.parseInt(uuid.slice(uuidPrefix.length), 16) : thisUser();
}

const thisUser = (): number => process.getuid?.() ?? 0;

/** One of the lab's networks as libvirt XML; transient: it ends with the daemon or with `net-destroy`. */
export function networkXml(
  name: NetworkName,
  { network, internet }: Pick<LibvirtSpec, "network" | "internet">,
): string {
  const isLab = name === labNetwork;
  const { first, last } = isLab ? blockOf(network) : managementBlock;
  // vagrant-libvirt finds networks by their netmask and reads no prefix.
  const netmask = toText(2 ** 32 - (last - first + 1));
  const dhcp = `<dhcp><range start="${toText(first + 2)}" end="${toText(last - 1)}"/></dhcp>`;
  return [
    `<network><name>${name}</name>`,
    isLab ? `<uuid>${uuidPrefix}${thisUser().toString(16).padStart(12, "0")}</uuid>` : "",
    !isLab && internet ? '<forward mode="nat"/>' : "",
    `<bridge stp="off" delay="0"/><ip address="${toText(first + 1)}" netmask="${netmask}">`,
    `${isLab ? "" : dhcp}</ip></network>`,
  ].join("");
}

async function makeNetwork(name: NetworkName, spec: LibvirtSpec, run: Run): Promise<void> {
  // virsh needs a file: it reopens its input, and a socket cannot be reopened.
  const folder = await mkdtemp(join(tmpdir(), "k3s-lab-network-"));
  try {
    const file = join(folder, `${name}.xml`);
    await writeFile(file, networkXml(name, spec));
    const { exitCode, stderr } = await virsh(run, "net-create", file);
    // Another `lab` may have created it meanwhile.
    if (exitCode === 0 || (await virsh(run, "net-info", name)).exitCode === 0) return;
    const block = name === labNetwork ? blockOf(spec.network) : managementBlock;
    const inUse = /already in use by interface/.test(stderr) ? await inTheWay(block, run) : "";
    throw new LabError(`libvirt could not create the network ${name}: ${lastLines(stderr, 3)}${inUse}`);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

/**
 * The routes for which libvirt considers a network in use, and what to do. libvirt names their interface, but a
 * blackhole route has none: "Network is already in use by interface *".
 */
async function inTheWay(block: Network, run: Run): Promise<string> {
  const shown = (await routesHere(run))
    .filter(({ dst }) => overlap(blockOf(dst), block))
    .map(({ type, dst, dev, metric }) =>
      [type, dst, dev && `dev ${dev}`, metric && `metric ${metric}`].filter(Boolean).join(" "),
    );
  if (shown.length === 0) return "";
  return `\nConflicting: ${shown.map((route) => `the route "${route}"`).join(", ")}. If you do not need it while the lab is up, remove it:\n${shown.map((route) => `  sudo ip route del ${route}`).join("\n")}\nOtherwise set another k3s-lab:network.`;
}

async function ensurePool(run: Run): Promise<void> {
  if ((await virsh(run, "pool-info", pool)).exitCode === 0) return;
  const target = ["--build", "--target", poolFolder];
  const { exitCode, stderr } = await virsh(run, "pool-create-as", pool, "dir", ...target);
  if (exitCode !== 0)
    throw new LabError(`libvirt could not create the pool ${pool}: ${lastLines(stderr, 3)}`);
}

const isNoPool = ({ stderr }: CommandResult): boolean => /pool not found/i.test(stderr);

const volumeNames = (text: string): string[] =>
  text.split("\n").flatMap((line) => line.trim().split(/\s+/)[0] || []);

/** What libvirt says of a volume: its path, its size in bytes, and the path of its base volume, if it has one. */
async function describeVolume(name: string, run: Run) {
  const { exitCode, stdout, stderr } = await virsh(run, "vol-dumpxml", "--pool", pool, name);
  if (exitCode !== 0)
    throw new LabError(
      `libvirt does not describe the disk ${name} in its pool ${pool}: ${lastLines(stderr, 1)}. Run the same command again.`,
    );
  const find = (pattern: RegExp): string | undefined => pattern.exec(stdout)?.[1];
  return {
    path: find(/<target>\s*<path>(.*?)<\/path>/),
    bytes: Number(find(/<physical unit=.bytes.>(\d+)</) ?? Number.POSITIVE_INFINITY),
    base: find(/<backingStore>\s*<path>(.*?)<\/path>/),
  };
}

/**
 * Whether a disk in the pool has only the beginning of the box's, as left by a plain Vagrant that was killed while
 * copying. One that machines are based on is left alone: it may be of an older box of the same name.
 */
async function isRest(name: string, image: string, volumes: readonly string[], run: Run): Promise<boolean> {
  const [whole, disk] = [await ifThere(stat(image)), await describeVolume(name, run)];
  if (whole === undefined || disk.bytes >= whole.size) return false;
  for (const other of volumes)
    if (other !== name && (await describeVolume(other, run)).base === disk.path) return false;
  // The lab's machines have their disks there; a clone's or a renamed machine's may be anywhere.
  const others = (await machinesHere(run)).filter((one) => !one.startsWith("k3s-lab-"));
  return (await usersAmong(others, run)).length === 0;
}

async function findDisk(box: Box, run: Run) {
  // vagrant-libvirt looks for this name before it uploads the disk.
  const name = `${box.name.replaceAll("/", "-VAGRANTSLASH-")}_vagrant_box_image_${box.version}_box.img`;
  const mark = `${name}.part`;
  const listed = await virsh(run, "vol-list", pool);
  // Without virsh the lab cannot have created any.
  if (listed.exitCode !== 0 && listed.ended !== "missing" && !isNoPool(listed))
    throw new LabError(
      `libvirt does not list the disks in its pool ${pool}: ${lastLines(listed.stderr, 1)}. Run the same command again.`,
    );
  const volumes = volumeNames(listed.stdout);
  const isMarked = volumes.includes(mark);
  const isThere = volumes.includes(name);
  const image = join(boxFolder(box), "box.img");
  const isHalf = isThere && !isMarked && (await isRest(name, image, volumes, run));
  return { name, mark, image, isThere, isMarked, isHalf };
}

/** Whether machines based on a box's disk in the pool would get only a part of it. */
export async function isPartial(box: Box, run: Run): Promise<boolean> {
  const { isThere, isMarked, isHalf } = await findDisk(box, run);
  return isThere && (isMarked || isHalf);
}

/**
 * Puts the box's disk into the pool. Vagrant would do this too, but concurrent Vagrants, one per machine, conflict.
 * Leaves a box of several disks to Vagrant. If a marker volume says that the disk is incomplete, as after a killed `lab`,
 * overwrites it in place: machines may be based on it, and the same box has the same bytes.
 */
async function ensureVolume(box: Box, progress: Progress, run: Run): Promise<void> {
  const { name, mark, image, isThere, isMarked, isHalf } = await findDisk(box, run);
  if (isThere && !isMarked && !isHalf) return;
  const metadata = await readFile(join(boxFolder(box), "metadata.json"), "utf8");
  const { virtual_size: size } = JSON.parse(metadata) as { virtual_size?: number };
  if (size === undefined) return;
  const step = async (...args: string[]) => {
    const { exitCode, stderr } = await virsh(run, ...args);
    if (exitCode !== 0)
      throw new LabError(`libvirt could not import the disk of the box ${box.name}: ${lastLines(stderr, 3)}`);
  };
  const remove = (volume: string) => virsh(run, "vol-delete", "--pool", pool, volume);
  progress("copying the box's disk");
  if (!isMarked) await step("vol-create-as", pool, mark, "1");
  if (isHalf) await step("vol-delete", "--pool", pool, name);
  // If it could not be created, it already exists and is in use, or it does not exist.
  const isNew = !isThere || isHalf;
  if (isNew) await step("vol-create-as", pool, name, `${size}G`, "--format", "qcow2", "--allocation", "0");
  try {
    await step("vol-upload", "--pool", pool, name, image);
  } catch (error) {
    if (isNew && (await remove(name)).exitCode === 0) await remove(mark);
    throw error;
  }
  await step("vol-delete", "--pool", pool, mark);
}
