import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { chmod, mkdir, mkdtemp, readdir, readFile, rename, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import { pipeline } from "node:stream/promises";
import { isDeepStrictEqual } from "node:util";
import { LabError } from "../../stacks/lib/errors.ts";
import { exists, writeWhole } from "../../stacks/lib/files.ts";
import type { Platform, Way } from "./tools.ts";

/** Something is not what its hash says. Never ignored, never installed, and no other way is taken instead. */
export class IntegrityError extends LabError {}

/** What identifies a tool in the cache. */
export interface CacheKey {
  readonly name: string;
  readonly version: string;
  readonly way: Way;
  readonly platform: Platform;
  /** Hash of all that decides the result: another recipe makes another tool. */
  readonly recipe: string;
}

interface FileRecord {
  readonly sha256: string;
  /** Bytes. */
  readonly size: number;
  readonly mtimeMs: number;
  /** When anything about it was changed last, which nobody can set: a change that keeps size and time shows too. */
  readonly ctimeMs: number;
  readonly inode: number;
}

interface Manifest extends CacheKey {
  readonly files: Readonly<Record<string, FileRecord>>;
}

/** A tool as it lies in the cache. */
export interface CachedTool {
  readonly dir: string;
  /** Absolute path by file name. */
  readonly files: Readonly<Record<string, string>>;
  /** Bytes. */
  readonly size: number;
}

/** What was found: a tool that is as recorded, nothing, or one that is not (and why). */
export type Found =
  | { readonly state: "good"; readonly tool: CachedTool }
  | { readonly state: "absent" }
  | { readonly state: "bad"; readonly reason: string };

/** The SHA-256 of a file, in hex. */
export async function sha256Of(file: string): Promise<string> {
  const hash = createHash("sha256");
  await pipeline(createReadStream(file, { highWaterMark: 1 << 20 }), hash);
  return hash.digest("hex");
}

/** Tools kept under `<folder>/<name>/<version>-<way>-<platform>/`, each with a manifest of its files' hashes. */
export class ToolCache {
  readonly folder: string;

  constructor(folder: string) {
    this.folder = folder;
  }

  /** Where this tool is or would be. */
  dirOf({ name, version, way, platform, recipe }: CacheKey): string {
    // Where a stand-in lies depends on the checkout it comes from, so several of them may be there.
    const suffix = way === "bundled" ? `-${recipe.slice(0, 8)}` : "";
    return join(this.folder, name, `${version}-${way}-${platform}${suffix}`);
  }

  lockOf(key: CacheKey): string {
    return `${this.dirOf(key)}.lock`;
  }

  /** Looks a tool up. Files whose size, times or inode changed since they were hashed are hashed again. */
  async find(key: CacheKey): Promise<Found> {
    const dir = this.dirOf(key);
    const text = await readFile(join(dir, "manifest.json"), "utf8").catch(unlessMissing);
    if (text === undefined)
      return (await exists(dir)) ? { state: "bad", reason: "it has no manifest" } : { state: "absent" };
    const manifest = parsed(text);
    if (!manifest) return { state: "bad", reason: "its manifest is damaged" };
    if (manifest.recipe !== key.recipe) return { state: "bad", reason: "its recipe has changed" };

    const files: Record<string, FileRecord> = {};
    for (const [name, record] of Object.entries(manifest.files)) {
      const path = join(dir, name);
      const now = await fingerprint(path);
      if (now === undefined) return { state: "bad", reason: `${name} is gone` };
      const same = isDeepStrictEqual({ ...now, sha256: record.sha256 }, record);
      if (!same && (now.size !== record.size || (await sha256Of(path)) !== record.sha256))
        return { state: "bad", reason: `${name} no longer has the hash ${record.sha256}` };
      files[name] = { ...record, ...now };
    }
    if (!isDeepStrictEqual(files, manifest.files))
      await writeManifest(dir, { ...manifest, files }).catch(() => undefined);
    return { state: "good", tool: cachedTool(dir, { ...manifest, files }) };
  }

  /**
   * Makes a tool in a folder of its own and moves it into its place when it is whole. The caller holds its lock.
   *
   * @param make fills the folder it is given with exactly these files.
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
      const files: Record<string, FileRecord> = {};
      for (const name of names) {
        const path = join(work, name);
        await chmod(path, 0o755);
        const found = await fingerprint(path);
        if (found === undefined) throw new Error(`${name} was not made`);
        files[name] = { sha256: await sha256Of(path), ...found };
      }
      const manifest = { ...key, files };
      await writeManifest(work, manifest);
      await chmod(work, 0o755);
      await rm(dir, { recursive: true, force: true });
      await rename(work, dir);
      return cachedTool(dir, manifest);
    } finally {
      await rm(work, { recursive: true, force: true });
    }
  }
}

function cachedTool(dir: string, manifest: Manifest): CachedTool {
  const entries = Object.entries(manifest.files);
  return {
    dir,
    files: Object.fromEntries(entries.map(([name]) => [name, join(dir, name)])),
    size: entries.reduce((sum, [, { size }]) => sum + size, 0),
  };
}

const writeManifest = (dir: string, manifest: Manifest): Promise<void> =>
  writeWhole(join(dir, "manifest.json"), `${JSON.stringify(manifest, null, 2)}\n`);

async function fingerprint(path: string): Promise<Omit<FileRecord, "sha256"> | undefined> {
  const found = await stat(path).catch(unlessMissing);
  if (!found) return undefined;
  const { size, mtimeMs, ctimeMs, ino } = found;
  return { size, mtimeMs, ctimeMs, inode: ino };
}

/** Undefined for what is not there; whatever else is the matter is an error. */
function unlessMissing(error: NodeJS.ErrnoException): undefined {
  if (error.code !== "ENOENT") throw error;
}

/** What a manifest says; undefined where it is none. */
function parsed(text: string): Manifest | undefined {
  try {
    const manifest = JSON.parse(text) as Manifest | null;
    return typeof manifest?.files === "object" && manifest.files !== null ? manifest : undefined;
  } catch {
    return undefined;
  }
}
