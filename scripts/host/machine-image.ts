import { createHash } from "node:crypto";
import { chmod, cp, mkdir, mkdtemp, readdir, readFile, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { basename, dirname, join } from "node:path";
import { execa } from "execa";
import { LabError } from "../../stacks/lib/errors.ts";
import { cacheDir, root } from "../../stacks/lib/paths.ts";
import { isRunning, type ProcessId, processId } from "../../stacks/lib/processes.ts";
import type { Progress } from "../../stacks/lib/progress.ts";
import { linkOrCopy } from "../links.ts";
import { withFileLock } from "../toolchain/file-lock.ts";
import { hashOf } from "../toolchain/hashes.ts";
import { bootstrapMode } from "./bootstrap.ts";
import { lastLines, plainEnglish, run } from "./commands.ts";
import { ociRuntime } from "./oci-runtime.ts";

const recipe = join(root, "vagrant", "image");

/** Debian's release and a machine's packages: systemd, ssh, K3s's dependencies, tools for inspection. */
export const suite = "bookworm";
export const basePackages: readonly string[] = [
  ["systemd", "systemd-sysv", "dbus", "openssh-server", "sudo", "ca-certificates", "curl"],
  ["containerd", "runc", "containernetworking-plugins"],
  // For a machine whose role is loadbalancer, and for Ansible.
  ["haproxy", "python3"],
  ["iproute2", "iptables", "ipset", "kmod", "procps", "conntrack", "socat", "ethtool", "iputils-ping"],
].flat();

/** Plugins that K3s expects in one folder with its own `flannel`; Debian has them in /usr/lib/cni. */
export const cniPlugins = ["bandwidth", "bridge", "host-local", "loopback", "portmap"];

const machinesImage = "The machines' image";

/** Identifies the lab's untagged images. */
const imageLabel = "k3s-lab.image";

/** The K3s files in a machine's image, so that its creation downloads nothing. */
export interface MachineContent {
  readonly k3s: string;
  readonly installScript: string;
  /** The flannel CNI plugin, for a K3s that does not bring its own. */
  readonly flannel?: string;
  /** An archive of the images that K3s needs; unpacked into the machine's image store. */
  readonly images: string;
  /** Manifests that K3s applies at its first start. */
  readonly manifests: readonly string[];
}

/**
 * The base image of every machine of the `docker` provider: Debian's packages, checked by Debian's signatures. Built once
 * on this computer, and again, with that day's packages, after `lab tools prune` has removed an old unused one.
 * @returns the image's tag.
 */
export async function ensureBaseImage(progress: Progress): Promise<string> {
  const tag = `k3s-lab/base:${shortHash([suite, ...basePackages])}`;
  return await once(tag, progress, async () => {
    const { mode, folder: place } = await bootstrapMode(progress);
    progress(`building a Debian ${suite} with ${basePackages.length} packages`);
    await mkdir(place, { recursive: true });
    const folder = await mkdtemp(join(place, "k3s-lab-base-"));
    try {
      const archive = join(folder, "base.tar");
      // On failure mmdebstrap sends SIGHUP to its whole process group, so run it in its own.
      await execa(
        "mmdebstrap",
        [
          "--quiet",
          `--mode=${mode}`,
          "--variant=minbase",
          `--include=${basePackages.join(",")}`,
          suite,
          archive,
        ],
        { stdin: "ignore", all: true, detached: true, env: { ...plainEnglish, TMPDIR: folder } },
      );
      const changes = ["ENV container=docker", `LABEL ${imageLabel}=base`];
      await docker("The machines' Debian", [
        "import",
        ...changes.flatMap((change) => ["--change", change]),
        ...[archive, tag],
      ]);
    } catch (cause) {
      if (cause instanceof LabError) throw cause;
      throw new LabError(
        `The machines' Debian could not be built: ${lastLines(String((cause as { all?: string }).all || (cause as Error).message), 3)}. Check that this computer reaches Debian's packages and try again.`,
        { cause },
      );
    } finally {
      await rm(folder, { recursive: true, force: true });
    }
  });
}

/**
 * Builds a missing image. Only one of several concurrent runs, in any checkout, builds it.
 * @returns its tag.
 */
async function once(tag: string, progress: Progress, make: () => Promise<void>): Promise<string> {
  if (await imageExists(tag)) return tag;
  const lock = join(cacheDir, "locks", `${tag.replaceAll(/[/:]/g, "-")}.lock`);
  await withFileLock(
    lock,
    async () => {
      if (!(await imageExists(tag))) await make();
    },
    { progress },
  );
  return tag;
}

/** Everything that determines a machine's content, by hash, independent of the files' paths. */
export async function contentParts(content: MachineContent): Promise<string[]> {
  const { k3s, installScript, images, flannel, manifests } = content;
  const parts: string[] = [];
  for (const file of [k3s, installScript, images, ...(flannel ? [flannel] : []), ...manifests])
    parts.push(`${basename(file)} ${await hashOf(file)}`);
  return parts;
}

/**
 * The image from which Vagrant's docker provider starts machines, built on this computer from `vagrant/image` and the
 * machine's files. Does nothing if it exists.
 * @returns the image's tag, `k3s-lab/machine:<hash of its content>`.
 */
export async function ensureMachineImage(
  base: string,
  content: MachineContent,
  progress: Progress,
): Promise<string> {
  const runtime = await ociRuntime(progress);
  const recipes = await Promise.all(
    ["Dockerfile", "setup.sh", "container.sh", "fill.sh", "place.sh", "flannel.sh"].map((file) =>
      readFile(join(recipe, file), "utf8"),
    ),
  );
  const tag = `k3s-lab/machine:${shortHash([
    (await imageId(base)) ?? base,
    // Its name identifies its content.
    basename(dirname(runtime ?? "")),
    ...(await contentParts(content)),
    ...recipes,
  ])}`;
  return await once(tag, progress, async () => {
    // Keep the context beside the big files, so that they can be hard-linked.
    const context = await mkdtemp(join(dirname(content.images), "context-")).catch(() =>
      mkdtemp(join(tmpdir(), "k3s-lab-")),
    );
    const built = `${tag}-unfilled-${process.pid}`;
    try {
      progress("preparing the machine image");
      await layOut(join(context, "files"), content, runtime);
      for (const file of ["Dockerfile", "setup.sh", "container.sh"])
        await cp(join(recipe, file), join(context, file));
      progress("building the machine image");
      const build = ["build", "--quiet", "--network", "none", "--build-arg", `base=${base}`];
      await docker(machinesImage, [...build, "--tag", built, context]);
      progress("unpacking K3s's images into it");
      await fill(built, tag, content.images);
    } finally {
      await execa("docker", ["image", "rm", built], { reject: false });
      await rm(context, { recursive: true, force: true });
    }
  });
}

/**
 * Lays out the files added to Debian on a machine: K3s, its installer, manifests and plugins in /opt/k3s-lab.
 * Big files are hard links if possible.
 * @param folder the machine's root folder.
 * @param runtime a program that runs containers instead of runc. Default: none.
 */
export async function layOut(folder: string, content: MachineContent, runtime?: string): Promise<void> {
  const assets = join(folder, "opt", "k3s-lab");
  for (const part of ["cni", "manifests"]) await mkdir(join(assets, part), { recursive: true });
  await linkOrCopy(content.k3s, join(assets, "k3s"));
  await linkOrCopy(content.installScript, join(assets, "install.sh"));
  await cp(join(recipe, "place.sh"), join(assets, "place.sh"));
  for (const manifest of content.manifests) await cp(manifest, join(assets, "manifests", basename(manifest)));
  if (content.flannel) {
    // Local builds mean that downloads are impossible, so pods cannot reach an external name server either.
    await writeFile(join(assets, "offline"), "");
    await linkOrCopy(content.flannel, join(assets, "cni", "flannel-plugin"));
    await cp(join(recipe, "flannel.sh"), join(assets, "cni", "flannel"));
    for (const plugin of cniPlugins) await symlink(`/usr/lib/cni/${plugin}`, join(assets, "cni", plugin));
  }
  if (runtime) {
    await mkdir(join(assets, "runtime"));
    await linkOrCopy(runtime, join(assets, "runtime", "runc"));
  }
  // K3s looks for its helpers on PATH: the machine's own must come first.
  const path = [
    "/opt/k3s-lab/runtime",
    "/opt/k3s-lab/cni",
    "/usr/local/sbin",
    "/usr/local/bin",
    "/usr/sbin",
    "/usr/bin",
    "/sbin",
    "/bin",
  ];
  for (const unit of ["k3s", "k3s-agent"]) {
    const place = join(folder, "etc", "systemd", "system", `${unit}.service.d`);
    await mkdir(place, { recursive: true });
    await writeFile(join(place, "path.conf"), `[Service]\nEnvironment=PATH=${path.join(":")}\n`);
  }
  // Docker applies a copied folder's mode to an existing one: with a umask of 077 only root could read /etc.
  const entries = await readdir(folder, { recursive: true, withFileTypes: true });
  const folders = entries.filter((one) => one.isDirectory()).map((one) => join(one.parentPath, one.name));
  for (const one of [folder, ...folders]) await chmod(one, 0o755);
}

/** Unpacks the images with containerd in a container of the new machine and keeps the result as the image. */
async function fill(from: string, tag: string, archive: string): Promise<void> {
  await removeStaleFillContainers();
  const started = (await processId(process.pid))?.startTime ?? "";
  const maker = `${process.pid}-${started}`;
  const name = `${fillName}${maker}`;
  // Containers inherit their image's labels: remove this container's label from the image.
  const changes = ['CMD ["/lib/systemd/systemd"]', `LABEL ${fillLabel}=""`];
  try {
    await docker(
      machinesImage,
      [
        ["run", "--name", name, "--label", `${fillLabel}=${maker}`],
        ["--privileged", "--network", "none", "--tmpfs", "/run", "--volume", "/fill"],
        ["--volume", `${archive}:/images/${basename(archive)}:ro`],
        ["--volume", `${join(recipe, "fill.sh")}:/fill.sh:ro`],
        [from, "sh", "/fill.sh"],
      ].flat(),
    );
    await docker(machinesImage, [
      "commit",
      ...changes.flatMap((change) => ["--change", change]),
      ...[name, tag],
    ]);
  } finally {
    await execa("docker", ["rm", "--force", "--volumes", name], { reject: false });
  }
}

/** Marks a container in which an image is built; its name and this label identify the process. */
const fillLabel = "k3s-lab.fill";
const fillName = "k3s-lab-fill-";

/**
 * The process that builds an image in a container; undefined for other containers. The label alone does not identify it:
 * machines and k3d's nodes inherited it from images of earlier versions.
 */
function makerOf(name: string, label: string): ProcessId | undefined {
  const [, pid, startTime] = /^(\d+)-(\d+)$/.exec(label) ?? [];
  return pid && startTime && name === `${fillName}${label}` ? { pid: Number(pid), startTime } : undefined;
}

/** Removes the image-building containers of killed `lab` processes. */
export async function removeStaleFillContainers(): Promise<void> {
  const format = `{{.ID}} {{.Names}} {{.Label "${fillLabel}"}}`;
  const list = ["ps", "--all", "--no-trunc", "--filter", `label=${fillLabel}`, "--format", format];
  const { stdout } = await execa("docker", list, { reject: false, timeout: 60_000 });
  for (const line of (stdout ?? "").split("\n").filter(Boolean)) {
    const [container = "", name = "", label = ""] = line.split(" ");
    const maker = makerOf(name, label);
    if (maker !== undefined && !(await isRunning(maker)))
      await execa("docker", ["rm", "--force", "--volumes", container], { reject: false });
  }
}

/**
 * Runs docker.
 * @param what is being built, as the sentence "WHAT could not be built" begins.
 * @throws LabError with docker's last lines.
 */
export async function docker(what: string, args: readonly string[]): Promise<void> {
  const { failed, all, shortMessage } = await execa("docker", args, {
    all: true,
    reject: false,
    stdin: "ignore",
    env: plainEnglish,
  });
  if (failed)
    throw new LabError(
      `${what} could not be built: docker ${args[0]} failed:\n${lastLines(all, 8) || shortMessage}`,
    );
}

/** Whether Docker has an image. @throws LabError if Docker does not answer, which does not mean "no". */
export const imageExists = async (tag: string): Promise<boolean> => (await imageId(tag)) !== undefined;

/** The id of an image, which identifies its content; undefined if Docker has none of that name. */
async function imageId(tag: string): Promise<string | undefined> {
  const { exitCode, stdout, stderr } = await run(["docker", "image", "inspect", "--format", "{{.Id}}", tag], {
    timeout: 60_000,
  });
  if (exitCode === 0) return stdout.trim();
  if (/no such (image|object)/i.test(stderr)) return undefined;
  throw new LabError(`Docker did not say whether it has the image ${tag}: ${lastLines(stderr, 2)}`);
}

export const shortHash = (parts: readonly string[]): string =>
  createHash("sha256").update(parts.join("\0")).digest("hex").slice(0, 16);
