import { appImageRef } from "../model/app-image.ts";
import type { OnCluster } from "../model/config.ts";
import { postgresImageRef } from "./images.ts";

/** The images of the lab's own that pods run, by the last part of their names: `web` is `k3s-lab/web`. */
export const ownImageRefs = {
  web: () => appImageRef("web"),
  "my-app": () => appImageRef("my-app"),
  postgres: () => postgresImageRef(),
} as const satisfies Readonly<Record<string, () => Promise<string>>>;

export type OwnImage = keyof typeof ownImageRefs;

/** What a stack's pods run: for each image one that the cluster can pull, where the file names it. */
const imagesOf = (config: OnCluster): readonly (readonly [OwnImage, string | undefined])[] =>
  "database" in config
    ? [
        ["my-app", config.images.app],
        ["postgres", config.images.database],
      ]
    : [["web", config.image]];

/** The images of the lab's own that a stack's nodes must hold. */
export const ownImagesOf = (config: OnCluster): readonly OwnImage[] =>
  imagesOf(config).flatMap(([name, pulled]) => (pulled === undefined ? [name] : []));
