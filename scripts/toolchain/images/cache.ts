import { createHash } from "node:crypto";
import { mkdir, mkdtemp, readdir, readFile, rename, rm, stat, utimes } from "node:fs/promises";
import { join } from "node:path";
import { writeWhole } from "../../../stacks/lib/files.ts";
import { cacheDir } from "../../../stacks/lib/paths.ts";
import type { Progress } from "../../../stacks/lib/progress.ts";
import { hashOf, sha256Of } from "../hashes.ts";
import { type ImageSpec, imageArchitecture, type Layer, sortedEntries, writeArchive } from "./archive.ts";

/** Part of every key: raise it if an archive's bytes change although its images do not. */
const format = 1;

/** Identifies images by everything that determines their bytes. */
export async function imagesKey(images: readonly ImageSpec[]): Promise<string> {
  const layers = new Map<Layer, string>();
  for (const layer of images.flatMap((image) => image.layers)) {
    if (layers.has(layer)) continue;
    const hash = createHash("sha256");
    for (const [path, entry] of sortedEntries(layer)) {
      const content =
        "source" in entry
          ? { ...entry, source: await hashOf(entry.source), bits: (await stat(entry.source)).mode & 0o111 }
          : "content" in entry
            ? { ...entry, content: Buffer.from(entry.content).toString("base64") }
            : entry;
      hash.update(JSON.stringify([path, content]));
    }
    layers.set(layer, hash.digest("hex"));
  }
  const whole = images.map((image) => ({ ...image, layers: image.layers.map((layer) => layers.get(layer)) }));
  return createHash("sha256")
    .update(JSON.stringify([format, imageArchitecture, whole]))
    .digest("hex");
}

/**
 * The archive of these images from the cache; writes it first if it is missing or its hash is wrong.
 * Concurrent runs do no harm: each writes its own file, and the last rename wins with the same bytes.
 */
export async function cachedArchive(
  name: string,
  images: readonly ImageSpec[],
  progress: Progress,
): Promise<string> {
  const base = join(cacheDir, "images");
  await mkdir(base, { recursive: true });
  const folder = join(base, await imagesKey(images));
  const archive = join(folder, `${name}.tar`);
  if (!(await isWhole(archive))) {
    progress(`writing ${images.length === 1 ? "image" : `${images.length} images`} to ${name}.tar`);
    const work = await mkdtemp(join(base, ".write-"));
    try {
      const made = join(work, `${name}.tar`);
      await writeArchive(made, images);
      // Write the hash first: an archive without its hash, or with a wrong one, is rewritten.
      await writeWhole(`${archive}.sha256`, `${await sha256Of(made)}\n`);
      await rename(made, archive);
    } finally {
      await rm(work, { recursive: true, force: true });
    }
    await prune(base, name, folder);
  }
  const now = new Date();
  await utimes(`${archive}.sha256`, now, now);
  return archive;
}

/** How many archives of a name are kept: another checkout may still use an older one. */
const keptArchives = 3;

/** Removes the least recently used archives of a name, but never `current`. */
async function prune(base: string, name: string, current: string): Promise<void> {
  const others: { folder: string; at: number }[] = [];
  for (const key of await readdir(base)) {
    const folder = join(base, key);
    const found = await stat(join(folder, `${name}.tar.sha256`)).catch(() => undefined);
    if (found !== undefined && folder !== current) others.push({ folder, at: found.mtimeMs });
  }
  others.sort((a, b) => b.at - a.at);
  for (const { folder } of others.slice(keptArchives - 1)) await rm(folder, { recursive: true, force: true });
}

async function isWhole(archive: string): Promise<boolean> {
  const recorded = await readFile(`${archive}.sha256`, "utf8").catch(() => undefined);
  if (recorded === undefined) return false;
  const actual = await hashOf(archive).catch(() => undefined);
  return actual === recorded.trim();
}
