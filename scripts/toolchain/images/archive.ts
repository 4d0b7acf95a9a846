import { createHash } from "node:crypto";
import { createReadStream, createWriteStream } from "node:fs";
import { mkdtemp, rename, rm, stat } from "node:fs/promises";
import { dirname, join } from "node:path";
import { pipeline } from "node:stream/promises";
import { type Header, pack } from "tar-stream";
import { LabError } from "../../errors.ts";

/** What a path in a layer is. `mode` defaults to 0644 for content, 0755 for directories and the source's own executable bits for files. `owner` is uid and gid in one; default: 0. */
export type LayerEntry =
  | { readonly source: string; readonly mode?: number; readonly owner?: number }
  | { readonly content: string | Uint8Array; readonly mode?: number; readonly owner?: number }
  | { readonly symlink: string }
  | { readonly directory: true; readonly mode?: number; readonly owner?: number };

/** A layer: absolute paths in the image and what they are. Missing parent directories are added (0755, root). */
export type Layer = Readonly<Record<string, LayerEntry>>;

/** What a container of the image runs, unless a pod says otherwise. */
export interface ImageConfig {
  readonly entrypoint?: readonly string[];
  readonly cmd?: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
  /** Numeric `uid` or `uid:gid`, which `runAsNonRoot` can check. Default: root. */
  readonly user?: string;
  readonly workingDir?: string;
}

export interface ImageSpec {
  /** Name and tag as a pod asks for it: `rancher/mirrored-pause:3.6`. */
  readonly ref: string;
  /** Bottom first. Layers of the same content are stored once for all images of an archive. */
  readonly layers: readonly Layer[];
  readonly config: ImageConfig;
}

/** Where `docker.io` and `library/` are implied, containerd wants them spelled out. */
export function fullReference(ref: string): string {
  const [first = "", ...rest] = ref.split("/");
  if (rest.length === 0) return `docker.io/library/${ref}`;
  return first.includes(".") || first.includes(":") || first === "localhost" ? ref : `docker.io/${ref}`;
}

/** The architecture by the name images give it. */
export function imageArchitecture(arch: string = process.arch): string {
  return arch === "x64" ? "amd64" : arch;
}

type Entry = Partial<Header> & Pick<Header, "name">;

interface Blob {
  readonly digest: string;
  readonly size: number;
  readonly body: { readonly file: string } | { readonly content: Buffer };
}

/**
 * Writes images as one tar that `docker load`, `ctr images import` and K3s's image folder take: the layout of
 * `docker save`, which is an OCI image layout with Docker's `manifest.json` beside it. Nothing in it depends on time,
 * user or the order of keys, so the same images are the same bytes. Layers are not compressed: reading them is faster.
 * The target appears only when it is whole.
 *
 * @throws LabError where a source file cannot be read.
 */
export async function writeArchive(target: string, images: readonly ImageSpec[]): Promise<void> {
  const work = await mkdtemp(join(dirname(target), ".archive-"));
  try {
    const blobs = new Map<string, Blob>();
    const layerBlobs = new Map<Layer, Blob>();
    for (const layer of new Set(images.flatMap((image) => image.layers))) {
      const blob = await writeLayer(join(work, `layer-${layerBlobs.size}`), layer);
      layerBlobs.set(layer, blob);
      blobs.set(blob.digest, blob);
    }

    const index: object[] = [];
    const manifest: object[] = [];
    for (const image of images) {
      const layers = image.layers.map((layer) => known(layerBlobs, layer));
      const config = jsonBlob(imageJson(image.config, layers));
      const imageManifest = jsonBlob({
        schemaVersion: 2,
        mediaType: "application/vnd.oci.image.manifest.v1+json",
        config: descriptor("application/vnd.oci.image.config.v1+json", config),
        layers: layers.map((layer) => descriptor("application/vnd.oci.image.layer.v1.tar", layer)),
      });
      for (const blob of [config, imageManifest]) blobs.set(blob.digest, blob);
      index.push({
        ...descriptor("application/vnd.oci.image.manifest.v1+json", imageManifest),
        platform: { architecture: imageArchitecture(), os: "linux" },
        annotations: {
          "io.containerd.image.name": fullReference(image.ref),
          "org.opencontainers.image.ref.name": image.ref.slice(image.ref.lastIndexOf(":") + 1),
        },
      });
      manifest.push({
        Config: blobPath(config),
        RepoTags: [image.ref],
        Layers: layers.map(blobPath),
      });
    }

    const tar = pack();
    const done = pipeline(tar, createWriteStream(join(work, "archive")));
    const fill = async () => {
      await addContent(tar, "oci-layout", json({ imageLayoutVersion: "1.0.0" }));
      await addContent(
        tar,
        "index.json",
        json({ schemaVersion: 2, mediaType: "application/vnd.oci.image.index.v1+json", manifests: index }),
      );
      await addContent(tar, "manifest.json", json(manifest));
      for (const blob of [...blobs.values()].sort((a, b) => (a.digest < b.digest ? -1 : 1))) {
        if ("content" in blob.body) await addContent(tar, blobPath(blob), blob.body.content);
        else await addFile(tar, { ...header(blobPath(blob), 0o644), size: blob.size }, blob.body.file);
      }
      tar.finalize();
    };
    await Promise.all([done, fill()]);
    await rename(join(work, "archive"), target);
  } finally {
    await rm(work, { recursive: true, force: true });
  }
}

function known<K, V>(map: ReadonlyMap<K, V>, key: K): V {
  const value = map.get(key);
  if (value === undefined) throw new Error("unreachable: every layer was written");
  return value;
}

async function writeLayer(file: string, layer: Layer): Promise<Blob> {
  const tar = pack();
  const hash = createHash("sha256");
  let size = 0;
  const done = pipeline(
    tar,
    async function* (source: AsyncIterable<unknown>) {
      for await (const chunk of source as AsyncIterable<Buffer>) {
        hash.update(chunk);
        size += chunk.length;
        yield chunk;
      }
    },
    createWriteStream(file),
  );
  const fill = async () => {
    for (const [path, entry] of sortedEntries(layer)) await addEntry(tar, path, entry);
    tar.finalize();
  };
  await Promise.all([done, fill()]);
  return { digest: hash.digest("hex"), size, body: { file } };
}

/** The entries of a layer with their parent directories, parents first, paths relative and checked. */
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

async function addEntry(tar: ReturnType<typeof pack>, path: string, entry: LayerEntry): Promise<void> {
  if ("symlink" in entry)
    return addContent(tar, path, undefined, { type: "symlink", linkname: entry.symlink, mode: 0o777 });
  const owner = { uid: entry.owner ?? 0, gid: entry.owner ?? 0 };
  if ("directory" in entry)
    return addContent(tar, `${path}/`, undefined, {
      type: "directory",
      mode: entry.mode ?? 0o755,
      ...owner,
    });
  if ("content" in entry)
    return addContent(tar, path, Buffer.from(entry.content as Uint8Array), {
      mode: entry.mode ?? 0o644,
      ...owner,
    });
  const found = await stat(entry.source).catch((cause: unknown) => {
    throw new LabError(`image layer: cannot read ${entry.source}, wanted as /${path}`, { cause });
  });
  const mode = entry.mode ?? ((found.mode & 0o111) === 0 ? 0o644 : 0o755);
  await addFile(tar, { ...header(path, mode), ...owner, size: found.size }, entry.source);
}

function header(name: string, mode: number): Entry {
  return { name, mode, uid: 0, gid: 0, mtime: new Date(0) };
}

function addContent(
  tar: ReturnType<typeof pack>,
  name: string,
  content?: Buffer,
  extra: Partial<Entry> = {},
): Promise<void> {
  return new Promise((done, fail) => {
    const whole = { ...header(name, 0o644), ...extra };
    const end = (error?: Error | null) => (error ? fail(error) : done());
    if (content === undefined) tar.entry(whole, end);
    else tar.entry({ ...whole, size: content.length }, content, end);
  });
}

function addFile(tar: ReturnType<typeof pack>, headers: Entry, file: string): Promise<void> {
  return pipeline(createReadStream(file, { highWaterMark: 1 << 20 }), tar.entry(headers));
}

function imageJson(config: ImageConfig, layers: readonly Blob[]): object {
  return {
    architecture: imageArchitecture(),
    os: "linux",
    created: "1970-01-01T00:00:00Z",
    config: {
      ...(config.user === undefined ? {} : { User: config.user }),
      Env: Object.entries({ PATH: "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", ...config.env })
        .map(([name, value]) => `${name}=${value}`)
        .sort(),
      ...(config.entrypoint === undefined ? {} : { Entrypoint: config.entrypoint }),
      ...(config.cmd === undefined ? {} : { Cmd: config.cmd }),
      WorkingDir: config.workingDir ?? "/",
    },
    rootfs: { type: "layers", diff_ids: layers.map((layer) => `sha256:${layer.digest}`) },
    history: layers.map(() => ({ created: "1970-01-01T00:00:00Z", created_by: "k3s-lab" })),
  };
}

function json(value: unknown): Buffer {
  return Buffer.from(JSON.stringify(value));
}

function jsonBlob(value: unknown): Blob {
  const content = json(value);
  return {
    digest: createHash("sha256").update(content).digest("hex"),
    size: content.length,
    body: { content },
  };
}

function descriptor(mediaType: string, blob: Blob): object {
  return { mediaType, digest: `sha256:${blob.digest}`, size: blob.size };
}

function blobPath(blob: Blob): string {
  return `blobs/sha256/${blob.digest}`;
}
