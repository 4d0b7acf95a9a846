import { mkdir, mkdtemp, readdir, readFile, rename, rm, stat, utimes, writeFile } from "node:fs/promises";
import { homedir, tmpdir } from "node:os";
import { basename, join } from "node:path";
import { LabError, refusal } from "../../stacks/lib/errors.ts";
import { exists } from "../../stacks/lib/files.ts";
import { cacheDir, root } from "../../stacks/lib/paths.ts";
import type { Progress } from "../../stacks/lib/progress.ts";
import { linkOrCopy } from "../links.ts";
import { withFileLock } from "../toolchain/file-lock.ts";
import { hashOf, sha256Of } from "../toolchain/hashes.ts";
import { lastLines, type Run, run as runHere } from "./commands.ts";
import {
  basePackages,
  contentParts,
  layOut,
  type MachineContent,
  shortHash,
  suite,
} from "./machine-image.ts";
import { ensurePackages } from "./packages.ts";
import { requireRoot } from "./privilege.ts";

export interface Box {
  readonly name: string;
  readonly version: string;
}

export interface BoxSource extends Box {
  /** The box's URL. Default: from Vagrant's public catalog, with the checksum. */
  readonly url?: string | undefined;
  /** SHA-256 of the file behind `url`, in hex. */
  readonly sha256?: string | undefined;
}

export interface BuiltBox extends BoxSource {
  readonly path: string;
  readonly url: string;
  readonly sha256: string;
  /** In bytes. */
  readonly size: number;
}

const boxes = join(cacheDir, "boxes");
const recipes = join(root, "vagrant");
const recipeFiles = [
  ...["build.sh", "vm.sh", "Vagrantfile"].map((file) => `box/${file}`),
  ...["setup.sh", "fill.sh", "place.sh", "flannel.sh"].map((file) => `image/${file}`),
];

/** What a virtual machine needs besides the packages of a containerized machine: a kernel and device setup. */
const packages = (arch: NodeJS.Architecture): readonly string[] => [
  ...basePackages,
  `linux-image-cloud-${arch === "arm64" ? "arm64" : "amd64"}`,
  "udev",
  "systemd-resolved",
];

/** GiB; the disk is sparse. */
const diskSize = 16;

/** Part of every key: raise it if boxes must be rebuilt for reasons outside the recipe. */
const format = 1;

/**
 * The box of libvirt's machines, built here and kept in the user's cache: Debian with its own kernel, K3s and K3s's images.
 * Needs root, but no Docker, no loop device and, apart from Debian's packages, no internet.
 * @param apps archives of further images, for machines that are slow to load them later.
 * @throws LabError without root privileges, and with the last lines of output on failure.
 */
export async function ensureBox(
  content: MachineContent,
  apps: readonly string[],
  progress: Progress,
): Promise<BuiltBox> {
  const include = packages(process.arch);
  const key = shortHash([
    String(format),
    ...[process.arch, suite, String(diskSize)],
    ...include,
    ...(await contentParts(content)),
    ...(await Promise.all(apps.map(sha256Of))),
    ...(await Promise.all(recipeFiles.map((file) => readFile(join(recipes, file), "utf8")))),
  ]);
  const name = `k3s-lab/machine-${key}`;
  const path = join(boxes, `${key}.box`);
  const box = { name, version: "1.0.0", path, url: `file://${path}` };
  // Only one of several concurrent runs, in any checkout, builds it.
  return await withFileLock(
    join(cacheDir, "locks", `box-${key}.lock`),
    async () => {
      const found = await whole(path);
      if (found) return { ...box, ...found };
      await build(path, include, content, apps, progress);
      const built = await whole(path);
      if (!built) throw new Error(`unreachable: ${path} was written`);
      return { ...box, ...built };
    },
    { progress },
  );
}

async function build(
  path: string,
  include: readonly string[],
  content: MachineContent,
  apps: readonly string[],
  progress: Progress,
): Promise<void> {
  await ensurePackages(["mmdebstrap", "debian-archive-keyring", "qemu-utils", "e2fsprogs", "zstd"], progress);
  const script = join(recipes, "box", "build.sh");
  const prefix = await requireRoot("Building the machines' box", ["scripts/lab", "box", "build"], runHere);
  await mkdir(boxes, { recursive: true });
  const work = await mkdtemp(join(boxes, ".build-"));
  try {
    await layOut(join(work, "files"), content);
    await mkdir(join(work, "images"));
    for (const archive of [content.images, ...apps])
      await linkOrCopy(archive, join(work, "images", basename(archive)));
    // Non-root programs of the machine must be able to read the files.
    const readable = ["sh", "-c", 'umask 022 && exec "$@"', "sh"];
    const environment = [`SUITE=${suite}`, `PACKAGES=${include.join(",")}`, `SIZE=${diskSize}G`];
    const { exitCode, stdout, stderr } = await runHere(
      [...prefix, "unshare", "--mount", ...readable, "env", ...environment, script, work],
      { onLine: (line) => line.startsWith("== ") && progress(line.slice(3)) },
    );
    if (exitCode !== 0)
      throw new LabError(
        `The machines' box could not be built:\n${lastLines(stderr || stdout)}\nCheck that this computer reaches Debian's packages and try again.`,
      );
    const made = join(work, "machine.box");
    await writeFile(`${path}.sha256`, `${await sha256Of(made)}\n`);
    await rename(made, path);
  } finally {
    await runHere([...prefix, "rm", "-rf", work]);
  }
  for (const name of await oldIn(boxes, /\.box\.sha256$/))
    for (const file of [name, name.replace(/\.sha256$/, "")]) await rm(join(boxes, file), { force: true });
}

async function whole(file: string): Promise<Pick<BuiltBox, "sha256" | "size"> | undefined> {
  const [recorded, found] = await Promise.all([
    readFile(`${file}.sha256`, "utf8").catch(() => undefined),
    stat(file).catch(() => undefined),
  ]);
  if (recorded === undefined || found === undefined) return undefined;
  const sha256 = await hashOf(file);
  if (sha256 !== recorded.trim()) return undefined;
  const now = new Date();
  await utimes(`${file}.sha256`, now, now);
  return { sha256, size: found.size };
}

/** All but the two most recently used files or folders of a kind: another checkout may still use an older one. */
async function oldIn(folder: string, kind: RegExp): Promise<string[]> {
  const names = (await readdir(folder)).filter((name) => kind.test(name));
  const used = await Promise.all(
    names.map(async (name) => ({ name, at: (await stat(join(folder, name))).mtimeMs })),
  );
  used.sort((a, b) => b.at - a.at);
  return used.slice(2).map(({ name }) => name);
}

const vagrantHome = (): string => process.env.VAGRANT_HOME ?? join(homedir(), ".vagrant.d");

/** Vagrant's folder of a box for the libvirt provider. */
export const boxFolder = ({ name, version }: Box): string =>
  join(vagrantHome(), "boxes", name.replaceAll("/", "-VAGRANTSLASH-"), version, "libvirt");

/**
 * The catalog of one box, from which `vagrant box add` takes version and checksum.
 * https://developer.hashicorp.com/vagrant/docs/boxes/format#box-metadata
 */
export const catalogOf = ({ name, version, url, sha256 }: BoxSource): object => {
  const provider = { name: "libvirt", url, checksum_type: "sha256", checksum: sha256 };
  return { name, versions: [{ version, providers: [provider] }] };
};

/**
 * Adds a box to Vagrant, which checks its SHA-256 and discards a mismatch; does nothing if Vagrant already
 * has it.
 * @throws LabError (exit code 2) if the checksum is wrong, and with Vagrant's last lines for any other reason.
 */
export async function addBox(box: BoxSource, progress: Progress, run: Run = runHere): Promise<void> {
  if (await exists(join(boxFolder(box), "metadata.json"))) return;
  progress(`adding the box ${box.name} to Vagrant`);
  const work = await mkdtemp(join(tmpdir(), "k3s-lab-box-"));
  try {
    const catalog = join(work, "box.json");
    if (box.url !== undefined) await writeFile(catalog, JSON.stringify(catalogOf(box)));
    const source = box.url === undefined ? [box.name, "--box-version", box.version] : [catalog];
    const { exitCode, stdout, stderr } = await run(
      ["vagrant", "box", "add", "--clean", "--no-color", "--provider", "libvirt", ...source],
      {
        onLine: (line) => {
          const [step] = /Progress: \d+%/.exec(line) ?? [];
          if (step) progress(`${box.name}: ${step}`);
        },
      },
    );
    if (exitCode === 0) return;
    const said = `${stdout}\n${stderr}`;
    if (/checksum/i.test(said))
      throw refusal(
        `The box ${box.name} ${box.version}${box.url ? ` from ${box.url} does not have the SHA-256 ${box.sha256}` : " does not have its catalog's checksum"}: it was damaged or replaced, and was discarded. Compare k3s-lab:box with what the box's publisher says.`,
      );
    throw new LabError(`Vagrant could not add the box ${box.name}:\n${lastLines(stderr || stdout, 6)}`);
  } finally {
    await rm(work, { recursive: true, force: true });
  }
}

/** Removes locally built boxes from Vagrant, except the latest: a stopped machine starts with its box's kernel. */
export async function removeOldBoxes(run: Run = runHere): Promise<void> {
  for (const name of await oldIn(join(vagrantHome(), "boxes"), /^k3s-lab-VAGRANTSLASH-machine-/))
    await run(["vagrant", "box", "remove", "--all", "--force", name.replace("-VAGRANTSLASH-", "/")]);
}
