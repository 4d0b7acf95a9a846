import { createHash } from "node:crypto";
import { cp, mkdir, mkdtemp, readFile, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { basename, dirname, join } from "node:path";
import { execa } from "execa";
import { linkOrCopy } from "../environment.ts";
import { LabError } from "../errors.ts";
import { root } from "../paths.ts";
import type { Progress } from "../progress.ts";
import { lastLines } from "./commands.ts";
import { ociRuntime } from "./oci-runtime.ts";
import { ensurePackages } from "./packages.ts";

const recipe = join(root, "vagrant", "image");

/** Debian's release and the packages of a machine: systemd, ssh, what K3s calls, what people look around with. */
export const suite = "bookworm";
export const basePackages: readonly string[] = [
  ["systemd", "systemd-sysv", "dbus", "openssh-server", "sudo", "ca-certificates", "curl"],
  ["containerd", "runc", "containernetworking-plugins"],
  ["iproute2", "iptables", "ipset", "kmod", "procps", "conntrack", "socat", "ethtool", "iputils-ping"],
].flat();

/** Plugins that K3s wants in one folder with its own `flannel`; Debian has them in /usr/lib/cni. */
export const cniPlugins = ["bandwidth", "bridge", "host-local", "loopback", "portmap"];

/** How messages name what `ensureMachineImage` makes. */
const machinesImage = "The machines' image";

/** What a machine carries of K3s, so that nothing is downloaded when it is made. */
export interface MachineContent {
  readonly k3s: string;
  readonly installScript: string;
  /** The flannel CNI plugin, for a K3s that does not bring its own. */
  readonly flannel?: string;
  /** An archive of the images that K3s asks for; unpacked into the machine's image store. */
  readonly images: string;
  /** Manifests that K3s applies at its first start. */
  readonly manifests: readonly string[];
}

/**
 * The bare system under every machine of the `docker` provider: Debian's own packages, checked by Debian's own
 * signatures, made into an image on this computer. Does nothing where it was made before.
 *
 * @returns the image's tag.
 */
export async function ensureBaseImage(progress: Progress): Promise<string> {
  const tag = `k3s-lab/base:${shortHash([suite, ...basePackages])}`;
  if (await imageExists(tag)) return tag;
  await ensurePackages(["mmdebstrap"], progress);
  progress(`making a Debian ${suite} with ${basePackages.length} packages`);
  const folder = await mkdtemp(join(tmpdir(), "k3s-lab-base-"));
  try {
    const archive = join(folder, "base.tar");
    // mmdebstrap sends SIGHUP to its whole process group when it fails: it gets one of its own.
    await execa(
      "mmdebstrap",
      ["--quiet", "--variant=minbase", `--include=${basePackages.join(",")}`, suite, archive],
      { stdin: "ignore", all: true, detached: true, env: { TMPDIR: folder } },
    );
    await docker("The machines' Debian", ["import", "--change", "ENV container=docker", archive, tag]);
  } catch (cause) {
    if (cause instanceof LabError) throw cause;
    throw new LabError(
      `The machines' Debian could not be made: ${lastLine(cause)}. Check that this computer reaches Debian's packages and try again.`,
      { cause },
    );
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
  return tag;
}

/**
 * The image that Vagrant's docker provider starts machines from, made on this computer from `vagrant/image` and what
 * the machine carries. Does nothing where the same was made before.
 *
 * @returns the image's tag, `k3s-lab/machine:<hash of all that is in it>`.
 */
export async function ensureMachineImage(
  base: string,
  content: MachineContent,
  progress: Progress,
): Promise<string> {
  const runtime = await ociRuntime(progress);
  const files = [
    content.k3s,
    content.installScript,
    content.images,
    ...(content.flannel ? [content.flannel] : []),
  ];
  const tag = `k3s-lab/machine:${shortHash([
    base,
    runtime ?? "",
    // A tool's folder and an archive's are named after what is in them.
    ...files,
    ...(await Promise.all(
      ["Dockerfile", "setup.sh", "container.sh", "fill.sh", "place.sh"].map((file) =>
        readFile(join(recipe, file), "utf8"),
      ),
    )),
    ...(await Promise.all(content.manifests.map((file) => readFile(file, "utf8")))),
  ])}`;
  if (await imageExists(tag)) return tag;

  // The context lies beside the big files, so that linking them is enough.
  const context = await mkdtemp(join(dirname(content.images), "context-")).catch(() =>
    mkdtemp(join(tmpdir(), "k3s-lab-")),
  );
  try {
    progress("laying out the machines' image");
    await layOut(join(context, "files"), content, runtime);
    for (const file of ["Dockerfile", "setup.sh", "container.sh"])
      await cp(join(recipe, file), join(context, file));
    progress("building the machines' image");
    const built = `${tag}-unfilled`;
    const build = ["build", "--quiet", "--network", "none", "--build-arg", `base=${base}`];
    await docker(machinesImage, [...build, "--tag", built, context]);
    progress("unpacking K3s's images into it");
    await fill(built, tag, content.images);
    await docker(machinesImage, ["image", "rm", built]);
  } finally {
    await rm(context, { recursive: true, force: true });
  }
  return tag;
}

/**
 * Lays out what lies above Debian's own files on a machine: K3s, its installer, manifests and plugins in /opt/k3s-lab.
 * Big files are links where that is possible.
 *
 * @param folder stands for the machine's root folder.
 * @param runtime a program to run containers with in place of runc. Default: none.
 */
export async function layOut(folder: string, content: MachineContent, runtime?: string): Promise<void> {
  const carried = join(folder, "opt", "k3s-lab");
  for (const part of ["cni", "manifests"]) await mkdir(join(carried, part), { recursive: true });
  await linkOrCopy(content.k3s, join(carried, "k3s"));
  await linkOrCopy(content.installScript, join(carried, "install.sh"));
  await cp(join(recipe, "place.sh"), join(carried, "place.sh"));
  for (const manifest of content.manifests)
    await cp(manifest, join(carried, "manifests", basename(manifest)));
  if (content.flannel) {
    // What was built here was built because nothing can be downloaded: neither can pods reach a name server outside.
    await writeFile(join(carried, "offline"), "");
    await linkOrCopy(content.flannel, join(carried, "cni", "flannel"));
    for (const plugin of cniPlugins) await symlink(`/usr/lib/cni/${plugin}`, join(carried, "cni", plugin));
  }
  if (runtime) {
    await mkdir(join(carried, "runtime"));
    await linkOrCopy(runtime, join(carried, "runtime", "runc"));
  }
  // K3s looks for its helpers on PATH: those that the machine carries go first.
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
}

/** Unpacks the images with containerd in a container of the new machine and keeps the result as the image. */
async function fill(from: string, tag: string, archive: string): Promise<void> {
  const name = `k3s-lab-fill-${process.pid}`;
  try {
    await docker(
      machinesImage,
      [
        ["run", "--name", name, "--privileged", "--network", "none", "--tmpfs", "/run", "--volume", "/fill"],
        ["--volume", `${archive}:/images/${basename(archive)}:ro`],
        ["--volume", `${join(recipe, "fill.sh")}:/fill.sh:ro`],
        [from, "sh", "/fill.sh"],
      ].flat(),
    );
    await docker(machinesImage, ["commit", "--change", 'CMD ["/lib/systemd/systemd"]', name, tag]);
  } finally {
    await execa("docker", ["rm", "--force", "--volumes", name], { reject: false });
  }
}

/**
 * Runs docker.
 * @param what is being made, as the sentence "WHAT could not be made" begins.
 * @throws LabError with the last lines that docker printed.
 */
export async function docker(what: string, args: readonly string[]): Promise<void> {
  const { failed, all, shortMessage } = await execa("docker", args, {
    all: true,
    reject: false,
    stdin: "ignore",
  });
  if (failed)
    throw new LabError(
      `${what} could not be made: docker ${args[0]} failed:\n${lastLines(all, 8) || shortMessage}`,
    );
}

export async function imageExists(tag: string): Promise<boolean> {
  const { failed } = await execa("docker", ["image", "inspect", "--format", "{{.Id}}", tag], {
    reject: false,
  });
  return !failed;
}

export const shortHash = (parts: readonly string[]): string =>
  createHash("sha256").update(parts.join("\0")).digest("hex").slice(0, 16);

const lastLine = (error: unknown): string =>
  String((error as Error).message)
    .trim()
    .split("\n")
    .at(-1) ?? "";
