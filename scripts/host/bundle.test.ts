import assert from "node:assert/strict";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { PassThrough } from "node:stream";
import { buffer } from "node:stream/consumers";
import { after, test } from "node:test";
import { extract } from "tar-stream";
import { LabError } from "../../stacks/lib/errors.ts";
import { platformFor, writeBundle } from "./bundle.ts";

const folder = await mkdtemp(join(tmpdir(), "bundle-"));
after(() => rm(folder, { recursive: true }));

test("an archive contains the files in order, and its own id last", async () => {
  const k3s = join(folder, "k3s");
  await writeFile(k3s, "K3s itself");
  const stream = new PassThrough();
  const read = buffer(stream);
  await writeBundle(
    {
      id: "k3s-1",
      entries: {
        k3s: { source: k3s, mode: 0o755 },
        offline: { content: "", mode: 0o644 },
        "manifests/a.yaml": { content: "kind: A", mode: 0o644 },
        bundle: { content: "k3s-1", mode: 0o644 },
      },
    },
    stream,
  );
  const found: [string, number | undefined, string][] = [];
  const reader = extract();
  reader.end(await read);
  for await (const entry of reader)
    found.push([entry.header.name, entry.header.mode, String(await buffer(entry))]);
  assert.deepEqual(found, [
    ["k3s", 0o755, "K3s itself"],
    ["offline", 0o644, ""],
    ["manifests/a.yaml", 0o644, "kind: A"],
    ["bundle", 0o644, "k3s-1"],
  ]);
});

test("a missing file is an error, and the archive does not end as if it were complete", async () => {
  const stream = new PassThrough();
  const read = buffer(stream).catch((error: Error) => error);
  await assert.rejects(
    writeBundle(
      {
        id: "k3s-1",
        entries: {
          k3s: { source: join(folder, "none"), mode: 0o755 },
          bundle: { content: "k3s-1", mode: 0o644 },
        },
      },
      stream,
    ),
    /cannot read .*none/,
  );
  stream.destroy();
  assert.doesNotMatch(String(await read), /k3s-1/);
});

test("a machine of this architecture gets the local files, another the release, an unsupported one an error", () => {
  assert.deepEqual(platformFor("x86_64", "x64"), {});
  assert.deepEqual(platformFor("aarch64", "arm64"), {});
  assert.deepEqual(platformFor("aarch64", "x64"), { platform: "linux-arm64", way: "release" });
  assert.deepEqual(platformFor("x86_64", "arm64"), { platform: "linux-amd64", way: "release" });
  assert.throws(
    () => platformFor("armv7l", "x64"),
    (error) =>
      error instanceof LabError && /armv7l machines, only for x86_64 and aarch64/.test(error.message),
  );
});
