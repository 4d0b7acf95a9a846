import assert from "node:assert/strict";
import { chmod, mkdtemp, rm, stat, utimes, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import pWaitFor from "p-wait-for";
import type { ImageSpec } from "./archive.ts";

describe("the image cache", () => {
  let folder = "";
  // The cache's place is read from the environment once, when the module loads.
  let cache: typeof import("./cache.ts");
  let sha256Of: typeof import("../hashes.ts").sha256Of;
  const outer = process.env.K3S_LAB_CACHE;
  before(async () => {
    folder = await mkdtemp(join(tmpdir(), "cache-"));
    process.env.K3S_LAB_CACHE = folder;
    cache = await import("./cache.ts");
    ({ sha256Of } = await import("../hashes.ts"));
    await writeFile(join(folder, "program"), "binary", { mode: 0o755 });
  });
  after(async () => {
    if (outer === undefined) delete process.env.K3S_LAB_CACHE;
    else process.env.K3S_LAB_CACHE = outer;
    await rm(folder, { recursive: true });
  });

  const image = (content = "x"): ImageSpec => ({
    ref: "example/one:1",
    layers: [{ "/program": { source: join(folder, "program") }, "/text": { content } }],
    config: { cmd: ["/program"] },
  });
  const write = async (spec: ImageSpec) => {
    const lines: string[] = [];
    const path = await cache.cachedArchive("test", [spec], (line) => lines.push(line));
    // The next use is a later one, by a millisecond at the least.
    const used = Date.now();
    await pWaitFor(() => Date.now() > used, { interval: 1 });
    return { path, written: lines.length > 0 };
  };

  it("writes once, then only what changed", async () => {
    const first = await write(image());
    assert.equal(first.written, true);
    assert.deepEqual(await write(image()), { path: first.path, written: false });
    assert.notEqual((await write(image("y"))).path, first.path);
    await write(image());
    assert.notEqual((await write({ ...image(), config: { cmd: ["/other"] } })).path, first.path);

    await writeFile(join(folder, "program"), "BINARY");
    assert.notEqual((await write(image())).path, first.path, "another content of the same size");
    await writeFile(join(folder, "program"), "binary");
    await utimes(join(folder, "program"), 1, 1);
    assert.deepEqual(await write(image()), { path: first.path, written: false });
    await chmod(join(folder, "program"), 0o644);
    assert.notEqual((await write(image())).path, first.path, "no longer executable");
    await chmod(join(folder, "program"), 0o755);
  });

  it("keeps the three last used", async () => {
    const paths: string[] = [];
    for (const content of ["1", "2", "3"]) paths.push((await write(image(content))).path);
    await write(image("1"));
    await write(image("4"));
    const there = await Promise.all(
      paths.map((path) =>
        stat(path).then(
          () => true,
          () => false,
        ),
      ),
    );
    assert.deepEqual(there, [true, false, true]);
  });

  it("keeps the one just written even if the clock was set back", async () => {
    const tomorrow = Date.now() / 1000 + 86_400;
    for (const content of ["1", "2", "3"]) {
      const { path } = await write(image(content));
      await utimes(`${path}.sha256`, tomorrow, tomorrow);
    }
    const { path } = await write(image("new"));
    assert.ok((await stat(path)).isFile());
    assert.deepEqual(await write(image("new")), { path, written: false });
  });

  it("rewrites entries that are damaged or have no recorded hash", async () => {
    const { path } = await write(image());
    const whole = await sha256Of(path);
    await writeFile(path, "damaged");
    assert.deepEqual(await write(image()), { path, written: true });
    assert.equal(await sha256Of(path), whole);
    await rm(`${path}.sha256`);
    assert.deepEqual(await write(image()), { path, written: true });
  });
});
