import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { readFile, stat } from "node:fs/promises";
import { join } from "node:path";
import { pipeline } from "node:stream/promises";
import { writeWhole } from "../../stacks/lib/files.ts";
import { cacheDir } from "../../stacks/lib/paths.ts";

export async function sha256Of(file: string): Promise<string> {
  const hash = createHash("sha256");
  await pipeline(createReadStream(file, { highWaterMark: 1 << 20 }), hash);
  return hash.digest("hex");
}

const notes = join(cacheDir, "images", "hashes.json");
let noted: Promise<Record<string, string>> | undefined;

/** The same, cached across runs as long as the file's size, inode and times stay the same. */
export async function hashOf(path: string): Promise<string> {
  // Start over if the file is incomplete or something else.
  noted ??= readFile(notes, "utf8")
    .then((text) => Object(JSON.parse(text)) as Record<string, string>)
    .catch(() => ({}));
  const known = await noted;
  const key = await stateOf(path);
  if (known[key] !== undefined) return known[key];
  const hash = await sha256Of(path);
  for (const old of Object.keys(known)) if (old.startsWith(`${path}|`)) delete known[old];
  known[key] = hash;
  // The cache only saves time, and may be another user's and read-only.
  await writeWhole(notes, JSON.stringify(known)).catch(() => undefined);
  return hash;
}

/** A text that changes when the file's content may have changed; does not read the file. */
export async function stateOf(path: string): Promise<string> {
  const { size, ino, mtimeNs, ctimeNs } = await stat(path, { bigint: true });
  return [path, size, ino, mtimeNs, ctimeNs].join("|");
}
