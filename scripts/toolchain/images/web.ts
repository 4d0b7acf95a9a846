import { readFile } from "node:fs/promises";
import { stripTypeScriptTypes } from "node:module";
import { join } from "node:path";
import type { Progress } from "../../../stacks/lib/progress.ts";
import { appDir, appImageConfig, appImageRef, appSources } from "../../../stacks/model/app-image.ts";
import type { Layer } from "./archive.ts";
import { cachedArchive } from "./cache.ts";
import { programLayer } from "./closure.ts";

/**
 * The web app's image: this Node.js with its libraries below, the app's few kilobytes above, so that a changed app is a
 * new layer alone. It runs as user 65532 and writes nothing. Name and version come by environment (APP_NAME,
 * APP_VERSION), so apps and their versions share one image.
 *
 * @returns a `docker save` archive in the user's cache, and the name that pods use.
 */
export async function appImage(
  options: { readonly progress?: Progress } = {},
): Promise<{ readonly path: string; readonly ref: string }> {
  const ref = await appImageRef();
  const layers = [await programLayer("/usr/bin/node", process.execPath), await appLayer()];
  const image = { ref, layers, config: appImageConfig };
  return { path: await cachedArchive("web", [image], options.progress ?? (() => {})), ref };
}

/** The app as JavaScript: with types, each container would take 27 MB and 0.1 s more to strip them at its start. */
async function appLayer(): Promise<Layer> {
  const layer: Record<string, Layer[string]> = {
    "/app/package.json": { content: '{"type":"module"}\n' },
  };
  for (const file of appSources) {
    const code = withoutTypes(await readFile(join(appDir, file), "utf8"));
    layer[`/app/${file.replace(/\.ts$/, ".js")}`] = {
      content: code.replace(/(from "\.\/[^"]+)\.ts"/g, '$1.js"'),
    };
  }
  return layer;
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
