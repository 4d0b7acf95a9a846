import type { Progress } from "../../../stacks/lib/progress.ts";
import { appFiles, appImageConfig, appImageRef, appNode } from "../../../stacks/model/app-image.ts";
import type { ImageSpec } from "./archive.ts";
import { cachedArchive } from "./cache.ts";
import { programLayer } from "./closure.ts";

/**
 * The web app's image: Node.js with its libraries below, the app's few kilobytes above, so that a changed app is a
 * new layer alone. It runs as user 65532 and writes nothing. Name and version come by environment (APP_NAME,
 * APP_VERSION), so apps and their versions share one image.
 */
export async function appImageSpec(): Promise<ImageSpec> {
  const files = Object.entries(await appFiles()).map(([path, content]) => [path, { content }] as const);
  return {
    ref: await appImageRef(),
    layers: [await programLayer(appImageConfig.entrypoint[0], appNode().path), Object.fromEntries(files)],
    config: appImageConfig,
  };
}

/** @returns a `docker save` archive of the web app's image in the user's cache, and the name that pods use. */
export async function appImage({
  progress = () => {},
}: {
  readonly progress?: Progress;
} = {}): Promise<{ readonly path: string; readonly ref: string }> {
  const image = await appImageSpec();
  return { path: await cachedArchive("web", [image], progress), ref: image.ref };
}
