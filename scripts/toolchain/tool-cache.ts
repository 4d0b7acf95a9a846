import { chmod, mkdir, mkdtemp, readdir, readFile, rename, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";
import { LabError } from "../../stacks/lib/errors.ts";
import { exists, ifThere, writeWhole } from "../../stacks/lib/files.ts";
import { hashOf, sha256Of } from "./hashes.ts";
import type { Platform, Way } from "./tools.ts";

/** A wrong hash. Such a file is never installed, and no other way is tried instead. */
export class IntegrityError extends LabError {}

/** What identifies a tool in the cache. */
export interface CacheKey {
  readonly name: string;
  readonly version: string;
  readonly way: Way;
  readonly platform: Platform;
  /** Hash of everything that determines the result: a different recipe makes a different tool. */
  readonly recipe: string;
}

/** The parts of a manifest that are read; older versions of the lab wrote more about each file. */
const manifestSchema = z.object({
  recipe: z.string(),
  files: z.record(z.string(), z.object({ sha256: z.string() })),
});
type Manifest = z.output<typeof manifestSchema>;

/** A tool in the cache. */
export interface CachedTool {
  readonly dir: string;
  /** Absolute path by file name. */
  readonly files: Readonly<Record<string, string>>;
  /** Bytes. */
  readonly size: number;
}

/** The result of a look-up: an intact tool, none, or a bad one and why. */
export type Found =
  | { readonly state: "good"; readonly tool: CachedTool }
  | { readonly state: "absent" }
  | { readonly state: "bad"; readonly reason: string };

/** Tools kept under `<folder>/<name>/<version>-<way>-<platform>/`, each with a manifest of its files' hashes. */
export class ToolCache {
  readonly folder: string;

  constructor(folder: string) {
    this.folder = folder;
  }

  dirOf({ name, version, way, platform, recipe }: CacheKey): string {
    // A stand-in comes from a checkout, so there may be one for each.
    const suffix = way === "bundled" ? `-${recipe.slice(0, 8)}` : "";
    return join(this.folder, name, `${version}-${way}-${platform}${suffix}`);
  }

  lockOf(key: CacheKey): string {
    return `${this.dirOf(key)}.lock`;
  }

  /** Looks a tool up. Files whose size, times or inode changed since they were hashed are hashed again. */
  async find(key: CacheKey): Promise<Found> {
    const dir = this.dirOf(key);
    const text = await ifThere(readFile(join(dir, "manifest.json"), "utf8"));
    if (text === undefined)
      return (await exists(dir)) ? { state: "bad", reason: "it has no manifest" } : { state: "absent" };
    const manifest = parsed(text);
    if (!manifest) return { state: "bad", reason: "its manifest is damaged" };
    if (manifest.recipe !== key.recipe) return { state: "bad", reason: "its recipe has changed" };
    for (const [name, { sha256 }] of Object.entries(manifest.files)) {
      const actual = await ifThere(hashOf(join(dir, name)));
      if (actual === undefined) return { state: "bad", reason: `${name} is missing` };
      if (actual !== sha256) return { state: "bad", reason: `${name} no longer has the hash ${sha256}` };
    }
    return { state: "good", tool: await cachedTool(dir, Object.keys(manifest.files)) };
  }

  /**
   * Makes a tool in a temporary folder and moves it into place once complete. The caller holds its lock.
   * @param make fills the given folder with exactly these files.
   */
  async add(
    key: CacheKey,
    names: readonly string[],
    make: (folder: string) => Promise<void>,
  ): Promise<CachedTool> {
    const dir = this.dirOf(key);
    const parent = join(this.folder, key.name);
    await mkdir(parent, { recursive: true });
    const own = `.making-${key.version}-${key.way}-${key.platform}-`;
    for (const entry of await readdir(parent))
      if (entry.startsWith(own)) await rm(join(parent, entry), { recursive: true, force: true });
    const work = await mkdtemp(join(parent, own));
    try {
      await make(work);
      const files: Record<string, { sha256: string }> = {};
      for (const name of names) {
        await chmod(join(work, name), 0o755);
        files[name] = { sha256: await sha256Of(join(work, name)) };
      }
      await writeWhole(join(work, "manifest.json"), `${JSON.stringify({ ...key, files }, null, 2)}\n`);
      await chmod(work, 0o755);
      await rm(dir, { recursive: true, force: true });
      await rename(work, dir);
      return await cachedTool(dir, names);
    } finally {
      await rm(work, { recursive: true, force: true });
    }
  }
}

async function cachedTool(dir: string, names: readonly string[]): Promise<CachedTool> {
  const files = Object.fromEntries(names.map((name) => [name, join(dir, name)]));
  const sizes = await Promise.all(Object.values(files).map(async (file) => (await stat(file)).size));
  return { dir, files, size: sizes.reduce((sum, size) => sum + size, 0) };
}

function parsed(text: string): Manifest | undefined {
  try {
    return manifestSchema.parse(JSON.parse(text));
  } catch {
    return undefined;
  }
}
