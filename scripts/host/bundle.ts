import { basename, join } from "node:path";
import type { Writable } from "node:stream";
import { refusal } from "../../stacks/lib/errors.ts";
import { root } from "../../stacks/lib/paths.ts";
import type { Progress } from "../../stacks/lib/progress.ts";
import { installedContent } from "../system-archive.ts";
import { hashOf } from "../toolchain/hashes.ts";
import { addEntry, writeTar } from "../toolchain/images/archive.ts";
import { unpackedPackages } from "../toolchain/images/debian.ts";
import type { Platform } from "../toolchain/tools.ts";
import { cniPlugins, shortHash } from "./machine-image.ts";

/** A file of a bundle: its content, or its source on this computer. */
type Entry = { readonly mode: number } & ({ readonly content: string } | { readonly source: string });

/** The files for a machine without K3s, laid out as `/opt/k3s-lab`. */
export interface Bundle {
  /** Changes with the content; the machine keeps it as the file `bundle`, the last one to be unpacked. */
  readonly id: string;
  readonly entries: Readonly<Record<string, Entry>>;
}

/** What a K3s that was built from its module does not bring: Debian's, as in the machines' image. */
const runtimePackages = ["containerd", "runc", "containernetworking-plugins"];
const runtimePrograms = [
  "usr/bin/containerd",
  "usr/bin/containerd-shim-runc-v2",
  "usr/bin/ctr",
  "usr/sbin/runc",
];

/**
 * K3s, its installer, its images and everything else that an offline machine needs.
 * @param architecture as `uname -m` says it on the machine.
 * @throws LabError if K3s is not available for it: an architecture other than this computer's needs the release.
 */
export async function k3sBundle(architecture: string, progress: Progress): Promise<Bundle> {
  const { k3s, content } = await installedContent(progress, platformFor(architecture));
  const executable = (source: string) => ({ source, mode: 0o755 });
  const file = (source: string) => ({ source, mode: 0o644 });
  const entries: Record<string, Entry> = {
    k3s: executable(content.k3s),
    "install.sh": executable(content.installScript),
    "place.sh": executable(join(root, "vagrant", "image", "place.sh")),
    [`images/${basename(content.images)}`]: file(content.images),
  };
  if (content.flannel !== undefined) {
    const debian = await unpackedPackages(runtimePackages, progress);
    entries.offline = text("");
    entries["cni/flannel-plugin"] = executable(content.flannel);
    entries["cni/flannel"] = executable(join(root, "vagrant", "image", "flannel.sh"));
    for (const program of runtimePrograms)
      entries[`bin/${basename(program)}`] = executable(join(debian, program));
    for (const plugin of cniPlugins)
      entries[`cni/${plugin}`] = executable(join(debian, "usr/lib/cni", plugin));
  }
  for (const manifest of content.manifests) entries[`manifests/${basename(manifest)}`] = file(manifest);
  const parts: string[] = [];
  for (const [name, entry] of Object.entries(entries))
    parts.push(`${name} ${"source" in entry ? await hashOf(entry.source) : entry.content}`);
  const id = `k3s-${k3s.version}-${architecture}-${shortHash(parts.sort())}`;
  return { id, entries: { ...entries, bundle: text(id) } };
}

const text = (content: string) => ({ content, mode: 0o644 });

/** The options of `installTools` for a machine's architecture: none if it is this computer's own. */
export function platformFor(
  architecture: string,
  own: string = process.arch,
): { readonly platform?: Platform; readonly way?: "release" } {
  const names: Readonly<Record<string, readonly [arch: string, platform: Platform]>> = {
    x86_64: ["x64", "linux-amd64"],
    aarch64: ["arm64", "linux-arm64"],
  };
  const [arch, platform] = (Object.hasOwn(names, architecture) && names[architecture]) || [];
  if (platform === undefined)
    throw refusal(
      `K3s is not available for ${architecture} machines, only for ${Object.keys(names).join(" and ")}.`,
    );
  // Images built here contain this computer's libraries: another architecture needs the release.
  return arch === own ? {} : { platform, way: "release" };
}

/** Writes a bundle as a tar archive, its files in order: an incomplete transfer lacks the last one. */
export const writeBundle = ({ entries }: Bundle, to: Writable): Promise<void> =>
  writeTar(to, async (tar) => {
    for (const [name, entry] of Object.entries(entries)) await addEntry(tar, name, entry);
  });
