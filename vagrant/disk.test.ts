import assert from "node:assert/strict";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { delimiter, join } from "node:path";
import { after, test } from "node:test";
import { execa } from "execa";

const folder = await mkdtemp(join(tmpdir(), "k3s-lab-disk-"));
after(() => rm(folder, { recursive: true }));
const { failed } = await execa("ruby", ["--version"], { reject: false });
await writeFile(join(folder, "box.img"), "0123456789");

/** What plain Vagrant says before it makes two machines of a box. @param says what virsh says of the box's disk. */
async function up(says: string): Promise<string> {
  await writeFile(join(folder, "virsh"), `#!/bin/sh\necho "$*" >>'${folder}/asked'\n${says}\n`, {
    mode: 0o755,
  });
  const program = `
    require "${import.meta.dirname}/disk.rb"
    def fail_with(message) = raise(message)
    box = Struct.new(:name, :version, :directory).new("k3s-lab/machine-1", "1.0.0", "${folder}")
    # Two machines of the box, and one whose box Vagrant does not have yet.
    [box, box, nil].each do |one|
      refuse_half_disk(one)
    rescue => e
      puts e.message
    end`;
  const env = { PATH: `${folder}${delimiter}${process.env.PATH}` };
  return (await execa("ruby", ["-e", program], { env })).stdout;
}

test("plain Vagrant begins no machine as the half of a box's disk", {
  skip: failed && "needs Ruby",
}, async () => {
  const disk = "k3s-lab-VAGRANTSLASH-machine-1_vagrant_box_image_1.0.0_box.img";
  const bytes = (count: number) => `echo "<volume><physical unit='bytes'>${count}</physical></volume>"`;
  const said = await up(bytes(4));
  assert.match(
    said,
    /only part of the disk of the box k3s-lab\/machine-1.*scripts\/lab up, which copies it again/,
  );
  assert.equal(said.trimEnd().split("\n").length, 2, `both machines: ${said}`);
  const asked = (await readFile(join(folder, "asked"), "utf8")).trimEnd().split("\n");
  assert.equal(
    asked.filter((line) => line.includes(disk)).length,
    1,
    "once: by the second time a machine may be uploading it",
  );
  assert.equal(await up(bytes(10)), "");
  // That of an older box of the same name, which was smaller.
  const used = `case "$*" in
*vol-list*) echo ' ${disk}   /pool/${disk}'; echo ' server.img   /pool/server.img' ;;
*server.img) echo '<volume><backingStore>'; echo '  <path>/pool/${disk}</path></backingStore></volume>' ;;
*) ${bytes(4)} ;;
esac`;
  assert.equal(await up(used), "", "machines begin as it");
  assert.equal(await up("echo 'error: Storage volume not found' >&2; exit 1"), "");
});
