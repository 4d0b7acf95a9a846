import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { execa } from "execa";

// The daemon runs in namespaces of its own, and sees folders of the lab's in place of /var/lib/libvirt and the like.
const namespaces = ["--mount", "--net", "--pid", "--fork", "--mount-proc"];
const works = async (file: string, args: readonly string[]) =>
  !(await execa(file, args, { reject: false })).failed;
const skip =
  !(
    (await works("unshare", [...namespaces, "true"])) &&
    (await works("libvirtd", ["--version"])) &&
    (await works("qemu-img", ["--version"]))
  ) && "needs root, libvirt and QEMU";

test("the lab's own libvirt leaves nothing behind and does not touch another user's lab", {
  skip,
}, async () => {
  const folder = await mkdtemp(join(tmpdir(), "k3s-lab-libvirt-"));
  try {
    const script = 'mount -t tmpfs tmpfs /run && ip link set lo up && "$@"';
    const command = [process.execPath, join(import.meta.dirname, "libvirt-daemon.ts"), folder];
    const { stdout } = await execa("unshare", [...namespaces, "sh", "-c", script, "sh", ...command], {
      env: { K3S_LAB_CACHE: join(folder, "cache"), VAGRANT_HOME: join(folder, "vagrant") },
      timeout: 180_000,
    });
    const { before, during, copied, stopped, after, refused, kept, held } = JSON.parse(stdout);
    const all = [
      ["k3s-lab", "k3s-lab-management"],
      ["k3s-lab"],
      ["k3s-lab-VAGRANTSLASH-machine-1_vagrant_box_image_1.0.0_box.img"],
    ];
    assert.deepEqual(during, { ...all, mode: 0o700 });
    assert.ok(copied.half < copied.whole, JSON.stringify(copied));
    assert.equal(copied.again, copied.whole);
    assert.deepEqual(stopped, [{ state: "ended" }, { state: "none" }]);
    assert.deepEqual(after, before);
    assert.match(refused, /^2 Another user of this computer \(id 4321\) has a lab in libvirt/);
    assert.deepEqual(kept, { state: "kept", by: ["the lab of another user (id 4321)"] });
    assert.deepEqual(held, all);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
});
