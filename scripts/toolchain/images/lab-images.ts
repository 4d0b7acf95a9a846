import type { Progress } from "../../../stacks/lib/progress.ts";
import { type AppName, appImageRef, appNames } from "../../../stacks/model/app-image.ts";
import { postgresImage, postgresImageSpec } from "./postgres.ts";
import { appImage, type ImageArchive } from "./web.ts";

interface LabImage {
  readonly ref: (progress?: Progress) => Promise<string>;
  /** The image as an archive, built if it is not in the cache. */
  readonly archive: (progress?: Progress) => Promise<ImageArchive>;
}

const ofApp = (app: AppName): LabImage => ({
  ref: () => appImageRef(app),
  archive: (progress = () => {}) => appImage({ progress }, app),
});

/** The lab's images by the last part of their names: `web` is `k3s-lab/web`. */
export const labImages: ReadonlyMap<string, LabImage> = new Map([
  ...appNames.map((app): [string, LabImage] => [app, ofApp(app)]),
  [
    "postgres",
    {
      ref: async (progress = () => {}) => (await postgresImageSpec(progress)).ref,
      archive: postgresImage,
    },
  ],
]);
