import { createHash } from "node:crypto";
import { existsSync, readFileSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { stripTypeScriptTypes } from "node:module";
import { join } from "node:path";
import { z } from "zod";
import { cacheDir, root } from "../lib/paths.ts";

/** How the image's container runs. It is unprivileged and writes nothing; its name and version come by environment. */
export const appImageConfig = {
  entrypoint: ["/usr/bin/node", "/app/server.js"],
  user: "65532:65532",
} as const;

/** The Node.js that `scripts/lab` pins, where it was fetched. */
function pinnedNode() {
  const file = join(root, "scripts", "toolchain", "node", "package.json");
  const { optionalDependencies: releases } = pinsSchema.parse(JSON.parse(readFileSync(file, "utf8")));
  const name = `node-linux-${process.arch}`;
  const path = join(cacheDir, "node", `${name}-${releases[name]}`, "bin", "node");
  return existsSync(path) ? { path, version: `v${releases[name]}` } : undefined;
}

const pinsSchema = z.object({ optionalDependencies: z.record(z.string(), z.string()) });

/**
 * The Node.js of the image: the one that the lab pins, where it was fetched, for an upgrade of the user's own must not roll
 * the apps out; else this one. The stack's program and `lab image` find the same one first on PATH.
 */
export const appNode = (): { readonly path: string; readonly version: string } =>
  pinnedNode() ?? { path: process.execPath, version: process.version };

/** Files of the web app's program in `apps/web`. */
const sources = ["server.ts", "page.ts"] as const;

/**
 * The app's files by their paths in the image: JavaScript, since with types each container would take 27 MB and 0.1 s more
 * to strip them at its start.
 */
export async function appFiles(): Promise<Readonly<Record<string, string>>> {
  const files: Record<string, string> = { "/app/package.json": '{"type":"module"}\n' };
  for (const source of sources) {
    const code = withoutTypes(await readFile(join(root, "apps", "web", source), "utf8"));
    files[`/app/${source.replace(/\.ts$/, ".js")}`] = code.replace(/(from "\.\/[^"]+)\.ts"/g, '$1.js"');
  }
  return files;
}

/**
 * The name of the web app's image. Its tag is a hash of what the lab puts into it: the app's files, the Node.js release that
 * runs them, and the container's configuration. A changed source is therefore another image, and shows in a preview.
 */
export async function appImageRef(): Promise<string> {
  const content = [appImageConfig, appNode().version, process.arch, await appFiles()];
  const hash = createHash("sha256").update(JSON.stringify(content)).digest("hex");
  return `k3s-lab/web:${hash.slice(0, 12)}`;
}

function withoutTypes(code: string): string {
  // Node.js warns that this function is experimental, which says nothing to the person at the keyboard.
  const emitWarning = process.emitWarning;
  process.emitWarning = () => {};
  try {
    return stripTypeScriptTypes(code);
  } finally {
    process.emitWarning = emitWarning;
  }
}
