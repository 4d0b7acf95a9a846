import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { createReadStream, createWriteStream } from "node:fs";
import { mkdtemp, readdir, readFile, rm, utimes, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Readable } from "node:stream";
import { after, before, describe, it } from "node:test";
import { extract, type Header } from "tar-stream";
import { copyWithout, type ImageSpec, type Layer, writeArchive } from "./archive.ts";

describe("writeArchive", () => {
  let folder = "";
  before(async () => {
    folder = await mkdtemp(join(tmpdir(), "archive-"));
    await writeFile(join(folder, "program"), "binary", { mode: 0o750 });
  });
  after(() => rm(folder, { recursive: true }));

  const shared: Layer = {
    "/bin": { symlink: "usr/bin" },
    "/etc/passwd": { content: "root:x:0:0::/:/bin/sh\n" },
  };
  const images = (): ImageSpec[] => [
    {
      ref: "example/one:1.0",
      layers: [
        shared,
        {
          "/usr/bin/program": { source: join(folder, "program"), mode: 0o755 },
          "/tmp": { directory: true, mode: 0o1777 },
          "/data/mine": { content: "" },
        },
      ],
      config: { entrypoint: ["/usr/bin/program"], user: "65532:65532" },
    },
    { ref: "example/two:2.0", layers: [{ ...shared }], config: { cmd: ["sh"] } },
  ];

  it("is byte-identical for the same images, whatever the file times and name order", async () => {
    const [one, two] = [join(folder, "one.tar"), join(folder, "two.tar")];
    await writeArchive(one, images());
    await utimes(join(folder, "program"), 1, 1);
    const reordered = images().map((image) => ({
      ...image,
      layers: image.layers.map((layer) => Object.fromEntries(Object.entries(layer).reverse())),
    }));
    await writeArchive(two, reordered);
    assert.deepEqual(await readFile(one), await readFile(two));

    await writeFile(join(folder, "program"), "Binary");
    await writeArchive(two, images());
    await writeFile(join(folder, "program"), "binary");
    assert.notDeepEqual(await readFile(one), await readFile(two));
  });

  it("is copied without the layers that a node has, and otherwise byte by byte", async () => {
    const [whole, part] = [join(folder, "all.tar"), join(folder, "part.tar")];
    await writeArchive(whole, images());
    await copyWithout(whole, new Set(["sha256:none"]), createWriteStream(part));
    assert.deepEqual(await readFile(part), await readFile(whole));

    const names = [...(await untar(createReadStream(whole))).keys()];
    const held = names.find((name) => name.startsWith("blobs/"));
    await copyWithout(whole, new Set([`sha256:${held?.slice(13)}`]), createWriteStream(part));
    const rest = [...(await untar(createReadStream(part))).keys()];
    assert.deepEqual(
      rest,
      names.filter((name) => name !== held),
    );
  });

  it("is in `docker save` format, with each layer once", async () => {
    const target = join(folder, "whole.tar");
    await writeArchive(target, images());
    const files = await untar(createReadStream(target));

    const manifest = JSON.parse(text(files, "manifest.json"));
    assert.deepEqual(
      manifest.map((image: { RepoTags: string[]; Layers: string[] }) => [
        image.RepoTags,
        image.Layers.length,
      ]),
      [
        [["example/one:1.0"], 2],
        [["example/two:2.0"], 1],
      ],
    );
    assert.equal(manifest[0].Layers[0], manifest[1].Layers[0]);
    const blobs = [...files.keys()].filter((name) => name.startsWith("blobs/"));
    assert.equal(blobs.length, 2 + 2 + 2, "layers, configurations, manifests");
    for (const name of blobs) assert.equal(name, `blobs/sha256/${sha256(files.get(name)?.body)}`);

    const config = JSON.parse(text(files, manifest[0].Config));
    assert.deepEqual(
      config.rootfs.diff_ids,
      manifest[0].Layers.map((name: string) => `sha256:${name.split("/").at(-1)}`),
    );
    assert.deepEqual(config.config, {
      User: "65532:65532",
      Env: ["PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"],
      Entrypoint: ["/usr/bin/program"],
      WorkingDir: "/",
    });

    const index = JSON.parse(text(files, "index.json"));
    assert.deepEqual(
      index.manifests.map((each: { annotations: object }) => each.annotations),
      [
        {
          "io.containerd.image.name": "docker.io/example/one:1.0",
          "org.opencontainers.image.ref.name": "1.0",
        },
        {
          "io.containerd.image.name": "docker.io/example/two:2.0",
          "org.opencontainers.image.ref.name": "2.0",
        },
      ],
    );

    const layer = await untar(Readable.from([files.get(manifest[0].Layers[1])?.body ?? Buffer.alloc(0)]));
    assert.deepEqual(
      [...layer].map(([name, { header }]) => [
        name,
        header.type,
        header.mode,
        header.uid,
        header.mtime?.getTime(),
      ]),
      [
        ["data/", "directory", 0o755, 0, 0],
        ["data/mine", "file", 0o644, 0, 0],
        ["tmp/", "directory", 0o1777, 0, 0],
        ["usr/", "directory", 0o755, 0, 0],
        ["usr/bin/", "directory", 0o755, 0, 0],
        ["usr/bin/program", "file", 0o755, 0, 0],
      ],
    );
  });

  it("leaves nothing behind when a file is missing, and names it", async () => {
    const target = join(folder, "missing.tar");
    const image: ImageSpec = {
      ref: "x:1",
      layers: [{ "/x": { source: join(folder, "nothing") } }],
      config: {},
    };
    await assert.rejects(writeArchive(target, [image]), /cannot read .*nothing, wanted as \/x/);
    assert.deepEqual(
      (await readdir(folder)).filter((name) => name.startsWith(".") || name === "missing.tar"),
      [],
    );
  });

  it("refuses paths that leave the image or go through a link", async () => {
    const write = (layer: Layer) =>
      writeArchive(join(folder, "bad.tar"), [{ ref: "x:1", layers: [layer], config: {} }]);
    await assert.rejects(write({ "/a/../b": { content: "" } }), /not a plain absolute path/);
    await assert.rejects(write({ a: { content: "" } }), /not a plain absolute path/);
    await assert.rejects(
      write({ "/bin": { symlink: "usr/bin" }, "/bin/sh": { content: "" } }),
      /\/bin\/sh is inside \/bin, which is not a directory/,
    );
  });
});

type Files = Map<string, { readonly header: Header; readonly body: Buffer }>;

async function untar(source: Readable): Promise<Files> {
  const files: Files = new Map();
  const tar = extract();
  source.pipe(tar);
  for await (const entry of tar) {
    const chunks: Buffer[] = [];
    for await (const chunk of entry) chunks.push(chunk as Buffer);
    const { name, type } = entry.header;
    files.set(type === "directory" && !name.endsWith("/") ? `${name}/` : name, {
      header: entry.header,
      body: Buffer.concat(chunks),
    });
  }
  return files;
}

function text(files: Files, name: string): string {
  return files.get(name)?.body.toString() ?? "";
}

function sha256(body: Buffer | undefined): string {
  return createHash("sha256")
    .update(body ?? "")
    .digest("hex");
}
