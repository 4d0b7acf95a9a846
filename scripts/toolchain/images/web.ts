import type { Progress } from "../../../stacks/lib/progress.ts";
import {
  type AppName,
  appFiles,
  appImageConfig,
  appImageRef,
  appNode,
} from "../../../stacks/model/app-image.ts";
import type { ImageSpec } from "./archive.ts";
import { cachedArchive } from "./cache.ts";
import { programLayer } from "./closure.ts";

/**
 * An app's image: a layer with Node.js and its libraries, and a small one with the app on top, so that a changed app
 * changes only that layer. It runs as user 65532 and writes nothing. Name and version come from the environment (APP_NAME,
 * APP_VERSION), so all apps of a program, in all versions, share one image.
 */
export async function appImageSpec(app: AppName = "web"): Promise<ImageSpec> {
  const files = Object.entries(await appFiles(app)).map(([path, content]) => [path, { content }] as const);
  const config = appImageConfig(app);
  return {
    ref: await appImageRef(app),
    layers: [await programLayer(config.entrypoint[0], appNode().path), Object.fromEntries(files)],
    config,
  };
}

export interface ImageArchive {
  /** A `docker save` archive in the user's cache. */
  readonly path: string;
  readonly ref: string;
}

/** An app's image as an archive, built if it is not in the cache. */
export async function appImage(
  { progress = () => {} }: { readonly progress?: Progress } = {},
  app: AppName = "web",
): Promise<ImageArchive> {
  const image = await appImageSpec(app);
  return { path: await cachedArchive(app, [image], progress), ref: image.ref };
}
