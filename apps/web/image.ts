import { readFile } from "node:fs/promises";
import { stripTypeScriptTypes } from "node:module";
import { join } from "node:path";
import type { Progress } from "../../scripts/progress.ts";
import type { ImageSpec, Layer } from "../../scripts/toolchain/images/archive.ts";
import { cachedArchive, FileHashes, imagesKey } from "../../scripts/toolchain/images/cache.ts";
import { programLayer } from "../../scripts/toolchain/images/closure.ts";

const repository = "k3s-lab/web";

/** The program's files: the entry first. */
const sources = ["server.ts", "page.ts"] as const;

/** The image's layers and configuration; its tag says their content. */
async function appImageSpec(): Promise<ImageSpec> {
  const image: ImageSpec = {
    ref: repository,
    layers: [await programLayer("/usr/bin/node", process.execPath), await appLayer()],
    config: {
      entrypoint: ["/usr/bin/node", "/app/server.js"],
      env: { NODE_ENV: "production" },
      user: "65532:65532",
      workingDir: "/app",
    },
  };
  const hashes = new FileHashes();
  const tag = (await imagesKey([image], hashes)).slice(0, 12);
  await hashes.save();
  return { ...image, ref: `${repository}:${tag}` };
}

/** The name `appImage` gives its image, without making it. */
export async function appImageRef(): Promise<string> {
  return (await appImageSpec()).ref;
}

/**
 * The web app's image: this Node.js with its libraries below, the app's few kilobytes above, so that a changed app is a
 * new layer alone. It runs as user 65532 and writes nothing. Name and version come by environment (APP_NAME,
 * APP_VERSION), so apps and their versions share one image. The tag is its content's hash: a node that has the tag has
 * these bytes.
 *
 * @returns a `docker save` archive in the user's cache, and the name that pods use.
 */
export async function appImage(
  options: { readonly progress?: Progress } = {},
): Promise<{ readonly path: string; readonly ref: string }> {
  const image = await appImageSpec();
  const path = await cachedArchive("web", [image], options.progress ?? (() => {}));
  return { path, ref: image.ref };
}

/** The app as JavaScript: with types, each container would take 27 MB and 0.1 s more to strip them at its start. */
async function appLayer(): Promise<Layer> {
  const layer: Record<string, Layer[string]> = {
    "/app/package.json": { content: '{"type":"module"}\n' },
  };
  for (const file of sources) {
    const code = withoutTypes(await readFile(join(import.meta.dirname, file), "utf8"));
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
