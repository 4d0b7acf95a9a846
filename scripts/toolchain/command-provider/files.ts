import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { pipeline } from "node:stream/promises";
import { matchPaths } from "./glob.ts";
import { fileAsset, type WireObject } from "./values.ts";

/** The files under `dir` that the globs choose, as assets under their path relative to it. */
export async function collectAssets(dir: string, globs: readonly string[]): Promise<WireObject> {
  const assets: Record<string, WireObject> = {};
  for (const path of matchPaths(await listFiles(dir), globs)) {
    const file = join(dir, path);
    assets[path] = fileAsset(file, await sha256(file));
  }
  return assets;
}

async function listFiles(dir: string, prefix = ""): Promise<readonly string[]> {
  const paths: string[] = [];
  const entries = await readdir(join(dir, prefix), { withFileTypes: true });
  for (const entry of entries.sort((a, b) => (a.name < b.name ? -1 : 1))) {
    const path = prefix + entry.name;
    if (entry.isDirectory()) paths.push(...(await listFiles(dir, `${path}/`)));
    else paths.push(path);
  }
  return paths;
}

async function sha256(file: string): Promise<string> {
  const hash = createHash("sha256");
  await pipeline(createReadStream(file), hash);
  return hash.digest("hex");
}
