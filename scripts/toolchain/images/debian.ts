import { createHash } from "node:crypto";
import { mkdir, mkdtemp, readdir, rename, rm } from "node:fs/promises";
import { join } from "node:path";
import { execa } from "execa";
import { LabError } from "../../../stacks/lib/errors.ts";
import { exists } from "../../../stacks/lib/files.ts";
import { cacheDir } from "../../../stacks/lib/paths.ts";
import type { Progress } from "../../../stacks/lib/progress.ts";
import { lastLines } from "../../host/commands.ts";

/**
 * The files of Debian packages without installing them: apt fetches and checks them, and they are unpacked once into the
 * cache. Needs no root. Does not follow dependencies: name every package.
 * @param noApt the error message if this computer has no apt.
 * @returns the folder with their tree (`usr/bin/…`).
 */
export async function unpackedPackages(
  names: readonly string[],
  progress: Progress,
  noApt = "The images of a K3s built here are made from Debian's packages, but this computer has no apt. Use K3s's release, which includes its images: LAB_TOOLS_WAY=release scripts/lab up",
): Promise<string> {
  const sorted = [...names].sort();
  const base = join(cacheDir, "images", "debian");
  // Computers of different architectures may share a home directory.
  const target = join(base, `${folderName(sorted)}-${process.arch}`);
  if (await exists(target)) return target;
  await mkdir(base, { recursive: true });
  const work = await mkdtemp(join(base, ".unpack-"));
  try {
    progress(`fetching Debian packages ${sorted.join(", ")}`);
    if ((await execa("apt-get", ["--version"], { reject: false })).failed) throw new LabError(noApt);
    await download(sorted, work);
    const debs = (await readdir(work)).filter((file) => file.endsWith(".deb"));
    const root = join(work, "root");
    await mkdir(root);
    for (const deb of debs) await execa("dpkg-deb", ["--extract", join(work, deb), root]);
    await rename(root, target).catch(async (error: unknown) => {
      // Another run was faster; its tree is the same.
      if (!(await exists(target))) throw error;
    });
    return target;
  } finally {
    await rm(work, { recursive: true, force: true });
  }
}

/** A folder's name is limited to 255 bytes. */
function folderName(sorted: readonly string[]): string {
  const all = sorted.join("+");
  return all.length <= 200
    ? all
    : `${sorted[0]}+${createHash("sha256").update(all).digest("hex").slice(0, 16)}`;
}

async function download(names: readonly string[], folder: string): Promise<void> {
  const fetch = (options: readonly string[]) =>
    execa("apt-get", [...options, "download", ...names], {
      cwd: folder,
      reject: false,
      env: { LC_ALL: "C" },
    });
  // _apt cannot enter a private folder; the download then runs as this user, which apt only warns about.
  const plain = ["-q", "-o", "APT::Sandbox::User=root"];
  if ((await fetch(plain)).exitCode === 0) return;

  // The system's package lists are missing or outdated: fetch new ones into this folder, which needs no root.
  const own = [
    ...plain,
    ...["-o", `Dir::State::Lists=${join(folder, "lists")}`],
    ...["-o", `Dir::Cache=${join(folder, "cache")}`],
  ];
  await mkdir(join(folder, "lists", "partial"), { recursive: true });
  await mkdir(join(folder, "cache", "archives", "partial"), { recursive: true });
  const update = await execa("apt-get", [...own, "update"], { reject: false, env: { LC_ALL: "C" } });
  const second = await fetch(own);
  if (second.exitCode !== 0)
    throw new LabError(
      `apt cannot fetch ${names.join(", ")}: ${lastLines(second.stderr, 1) || lastLines(update.stderr, 1) || second.shortMessage}. ` +
        `Make sure that \`apt-get download ${names[0]}\` works, then run the command again.`,
    );
}
