import { join } from "node:path";
import type { Progress } from "../../../stacks/lib/progress.ts";
import type { ImageSpec } from "./archive.ts";
import { cachedArchive, imagesKey } from "./cache.ts";
import { mergedUsr, programLayer } from "./closure.ts";
import { unpackedPackages } from "./debian.ts";

const repository = "k3s-lab/registry";

/**
 * An image registry for a computer that cannot pull one: Debian's build of Distribution, laid out like its official
 * image (port 5000, data in /var/lib/registry).
 * @returns a `docker load` archive in the user's cache, and the image's name, whose tag identifies the content.
 */
export async function registryImage(
  progress: Progress,
): Promise<{ readonly path: string; readonly ref: string }> {
  const root = await unpackedPackages(["docker-registry"], progress);
  const image: ImageSpec = {
    ref: repository,
    layers: [
      mergedUsr,
      await programLayer("/usr/bin/docker-registry", join(root, "usr/bin/docker-registry")),
      {
        "/etc/docker/registry/config.yml": { content: config },
        "/var/lib/registry": { directory: true },
        "/tmp": { directory: true, mode: 0o1777 },
      },
    ],
    config: { entrypoint: ["/usr/bin/docker-registry"], cmd: ["serve", "/etc/docker/registry/config.yml"] },
  };
  const ref = `${repository}:${(await imagesKey([image])).slice(0, 12)}`;
  return { path: await cachedArchive("registry", [{ ...image, ref }], progress), ref };
}

/** https://distribution.github.io/distribution/about/configuration/ */
const config = `version: 0.1
storage:
  filesystem: {rootdirectory: /var/lib/registry}
  delete: {enabled: true}
http:
  addr: :5000
`;
