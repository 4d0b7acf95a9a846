import { appImageRef } from "../model/app-image.ts";
import type { OnCluster } from "../model/config.ts";
import { postgresImageRef } from "./images.ts";

/** The lab's own images that pods run, by the last part of their names: `web` is `k3s-lab/web`. */
export const ownImageRefs = {
  web: () => appImageRef("web"),
  "my-app": () => appImageRef("my-app"),
  postgres: () => postgresImageRef(),
} as const satisfies Readonly<Record<string, () => Promise<string>>>;

export type OwnImage = keyof typeof ownImageRefs;

/**
 * The images of a stack's pods, in the order in which pods need them, each with the pullable image that replaces it, if the
 * file names one.
 */
const imagesOf = (config: OnCluster): readonly (readonly [OwnImage, string | undefined])[] =>
  "database" in config
    ? [
        ["postgres", config.images.database],
        ["my-app", config.images.app],
      ]
    : [["web", config.image]];

/** The lab's own images that a stack's nodes must hold. */
export const ownImagesOf = (config: OnCluster): readonly OwnImage[] =>
  imagesOf(config).flatMap(([name, pulled]) => (pulled === undefined ? [name] : []));
