import assert from "node:assert/strict";
import { mkdtemp, open, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { findGo } from "../../scripts/toolchain/go-module.ts";
import { hostPlatform, Installer } from "../../scripts/toolchain/install.ts";
import { type Platform, tools } from "../../scripts/toolchain/tools.ts";
import { root } from "../../stacks/lib/paths.ts";

const go = await findGo();
const skip = "missing" in go && go.missing;
const cache = await mkdtemp(join(tmpdir(), "k3s-lab-cross-"));
after(() => rm(cache, { recursive: true }));

/** ELF's e_machine, https://refspecs.linuxfoundation.org/elf/gabi4+/ch4.eheader.html, in Go's words. */
async function machineOf(file: string): Promise<string> {
  const handle = await open(file);
  try {
    const { buffer } = await handle.read(Buffer.alloc(20), 0, 20, 0);
    assert.equal(buffer.toString("latin1", 0, 4), "\x7fELF");
    return { 62: "linux-amd64", 183: "linux-arm64" }[buffer.readUInt16LE(18)] ?? "something else";
  } finally {
    await handle.close();
  }
}

for (const platform of ["linux-amd64", "linux-arm64"] satisfies Platform[])
  test(`a machine's program is built for ${platform} on ${hostPlatform()}, and cached as such`, {
    skip,
  }, async () => {
    const installer = new Installer({ cache, checkout: root, table: tools });
    const { flannel } = await installer.install(["flannel"], { way: "module", platform });
    assert.match(flannel?.dir ?? "", new RegExp(`/flannel/v0\\.9\\.1-module-${platform}$`));
    assert.equal(await machineOf(flannel?.files.flannel ?? ""), platform);
  });
