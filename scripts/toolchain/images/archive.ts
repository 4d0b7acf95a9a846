import { createHash } from "node:crypto";
import { createReadStream, createWriteStream } from "node:fs";
import { mkdtemp, rename, rm, stat } from "node:fs/promises";
import { dirname, join } from "node:path";
import type { Writable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { extract, type Pack, pack } from "tar-stream";
import { LabError } from "../../../stacks/lib/errors.ts";
import { sha256Of } from "../hashes.ts";

/**
 * An entry of a layer. `mode` defaults to 0644 for content, 0755 for directories and the source's executable bits for
 * files. Everything belongs to root.
 */
export type LayerEntry =
  | { readonly source: string; readonly mode?: number }
  | { readonly content: string; readonly mode?: number }
  | { readonly symlink: string }
  | { readonly directory: true; readonly mode?: number };

/** A layer: absolute paths in the image and their entries. Missing parent directories are added (0755, root). */
export type Layer = Readonly<Record<string, LayerEntry>>;

/** The default command of a container. */
interface ImageConfig {
  readonly entrypoint?: readonly string[];
  readonly cmd?: readonly string[];
  /** Numeric `uid` or `uid:gid`, which `runAsNonRoot` can check. Default: root. */
  readonly user?: string;
}

export interface ImageSpec {
  /** Name and tag as in a pod, in a repository of Docker Hub: `rancher/mirrored-pause:3.6`. */
  readonly ref: string;
  /** Bottom first. Identical layers are stored only once in an archive. */
  readonly layers: readonly Layer[];
  readonly config: ImageConfig;
}

/** The architecture's name in images. */
export const imageArchitecture = process.arch === "x64" ? "amd64" : process.arch;

interface Blob {
  readonly digest: string;
  readonly size: number;
  readonly body: string | Buffer;
}

/**
 * Writes images as one tar for `docker load`, `ctr images import` and K3s's image folder: an OCI image layout plus Docker's
 * `manifest.json`. The same images give the same bytes. Layers are uncompressed, which is faster to read.
 * @throws LabError if a source file cannot be read.
 */
export async function writeArchive(target: string, images: readonly ImageSpec[]): Promise<void> {
  const work = await mkdtemp(join(dirname(target), ".archive-"));
  try {
    const layers = new Map<Layer, Blob>();
    for (const layer of new Set(images.flatMap((image) => image.layers)))
      layers.set(layer, await writeLayer(join(work, `layer-${layers.size}`), layer));
    const described = images.map((image) =>
      describeImage(
        image,
        image.layers.flatMap((layer) => layers.get(layer) ?? []),
      ),
    );
    const blobs = [...layers.values(), ...described.flatMap(({ config, manifest }) => [config, manifest])];
    const unique = new Map(blobs.map((blob) => [blob.digest, blob]));
    const manifests = described.map(({ entry }) => entry);
    await writeTar(join(work, "archive"), async (tar) => {
      add(tar, "oci-layout", json({ imageLayoutVersion: "1.0.0" }));
      add(tar, "index.json", json({ schemaVersion: 2, mediaType: `${oci}.index.v1+json`, manifests }));
      add(tar, "manifest.json", json(described.map(({ docker }) => docker)));
      for (const [, blob] of [...unique].sort(([a], [b]) => (a < b ? -1 : 1)))
        if (typeof blob.body !== "string") add(tar, pathOf(blob), blob.body);
        else await addFile(tar, pathOf(blob), 0o644, blob.size, blob.body);
    });
    await rename(join(work, "archive"), target);
  } finally {
    await rm(work, { recursive: true, force: true });
  }
}

/** Copies an archive, without what a node has already. @param held digests: `sha256:…`. */
export async function copyWithout(archive: string, held: ReadonlySet<string>, to: Writable): Promise<void> {
  const entries = extract();
  const reading = pipeline(createReadStream(archive, { highWaterMark: 1 << 20 }), entries);
  await writeTar(to, async (tar) => {
    for await (const entry of entries) {
      const [, digest] = /^blobs\/sha256\/(.+)$/.exec(entry.header.name) ?? [];
      if (held.has(`sha256:${digest}`)) entry.resume();
      else await pipeline(entry, tar.entry(entry.header));
    }
    await reading;
  });
}

const oci = "application/vnd.oci.image";

function describeImage({ ref, config: { user, entrypoint, cmd } }: ImageSpec, layers: readonly Blob[]) {
  const created = "1970-01-01T00:00:00Z";
  const config = jsonBlob({
    architecture: imageArchitecture,
    os: "linux",
    created,
    config: {
      ...(user === undefined ? {} : { User: user }),
      Env: ["PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"],
      ...(entrypoint === undefined ? {} : { Entrypoint: entrypoint }),
      ...(cmd === undefined ? {} : { Cmd: cmd }),
      WorkingDir: "/",
    },
    rootfs: { type: "layers", diff_ids: layers.map((layer) => `sha256:${layer.digest}`) },
    history: layers.map(() => ({ created, created_by: "k3s-lab" })),
  });
  const manifest = jsonBlob({
    schemaVersion: 2,
    mediaType: `${oci}.manifest.v1+json`,
    config: descriptor(`${oci}.config.v1+json`, config),
    layers: layers.map((layer) => descriptor(`${oci}.layer.v1.tar`, layer)),
  });
  const entry = {
    ...descriptor(`${oci}.manifest.v1+json`, manifest),
    platform: { architecture: imageArchitecture, os: "linux" },
    annotations: {
      // containerd requires the full names, which `docker load` assumes.
      "io.containerd.image.name": `docker.io/${ref}`,
      "org.opencontainers.image.ref.name": ref.slice(ref.lastIndexOf(":") + 1),
    },
  };
  return {
    config,
    manifest,
    entry,
    docker: { Config: pathOf(config), RepoTags: [ref], Layers: layers.map(pathOf) },
  };
}

async function writeLayer(file: string, layer: Layer): Promise<Blob> {
  await writeTar(file, async (tar) => {
    for (const [path, entry] of sortedEntries(layer)) await addEntry(tar, path, entry);
  });
  return { digest: await sha256Of(file), size: (await stat(file)).size, body: file };
}

/** Writes a tar archive. */
export async function writeTar(to: string | Writable, fill: (tar: Pack) => Promise<void>): Promise<void> {
  const tar = pack();
  await Promise.all([
    pipeline(tar, typeof to === "string" ? createWriteStream(to) : to),
    fill(tar).then(
      () => tar.finalize(),
      (cause: Error) => {
        tar.destroy(cause);
        throw cause;
      },
    ),
  ]);
}

/** A layer's entries and their parent directories, parents first, with relative, checked paths. */
export function sortedEntries(layer: Layer): readonly (readonly [string, LayerEntry])[] {
  const all = new Map<string, LayerEntry>();
  for (const [path, entry] of Object.entries(layer)) {
    const parts = path.split("/").slice(1);
    if (!path.startsWith("/") || parts.some((part) => part === "" || part === "." || part === ".."))
      throw new LabError(`image layer: ${path} is not a plain absolute path`);
    for (let depth = 1; depth < parts.length; depth++) {
      const parent = parts.slice(0, depth).join("/");
      const there = layer[`/${parent}`];
      if (there !== undefined && !("directory" in there))
        throw new LabError(`image layer: ${path} is inside /${parent}, which is not a directory`);
      if (there === undefined) all.set(parent, { directory: true });
    }
    all.set(parts.join("/"), entry);
  }
  return [...all].sort(([a], [b]) => (a < b ? -1 : 1));
}

export async function addEntry(tar: Pack, path: string, entry: LayerEntry): Promise<void> {
  if ("symlink" in entry)
    return void tar.entry({ ...root, name: path, type: "symlink", linkname: entry.symlink, mode: 0o777 });
  if ("directory" in entry)
    return void tar.entry({ ...root, name: `${path}/`, type: "directory", mode: entry.mode ?? 0o755 });
  if ("content" in entry) return add(tar, path, Buffer.from(entry.content), entry.mode);
  const found = await stat(entry.source).catch((cause: unknown) => {
    throw new LabError(`cannot read ${entry.source}, wanted as /${path} in an archive`, { cause });
  });
  const mode = entry.mode ?? ((found.mode & 0o111) === 0 ? 0o644 : 0o755);
  await addFile(tar, path, mode, found.size, entry.source);
}

const root = { uid: 0, gid: 0, mtime: new Date(0) };

function add(tar: Pack, name: string, content: Buffer, mode = 0o644): void {
  tar.entry({ ...root, name, mode, size: content.length }, content);
}

async function addFile(tar: Pack, name: string, mode: number, size: number, file: string): Promise<void> {
  await pipeline(
    createReadStream(file, { highWaterMark: 1 << 20 }),
    tar.entry({ ...root, name, mode, size }),
  );
}

const json = (value: unknown): Buffer => Buffer.from(JSON.stringify(value));

function jsonBlob(value: unknown): Blob {
  const body = json(value);
  return { digest: createHash("sha256").update(body).digest("hex"), size: body.length, body };
}

const descriptor = (mediaType: string, { digest, size }: Blob): object => ({
  mediaType,
  digest: `sha256:${digest}`,
  size,
});

const pathOf = ({ digest }: Blob): string => `blobs/sha256/${digest}`;
