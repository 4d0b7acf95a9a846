import assert from "node:assert/strict";
import { constants } from "node:fs";
import { access, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { execa } from "execa";
import { guests, kvmProblem, type Outcome, runs, unlessHung } from "./kvm.ts";

// QEMU's emulation stands in for KVM: it shows that the programs end their machines, on any computer.
for (const arch of ["x64", "arm64"] as const) {
  const guest = guests[arch];
  assert.ok(guest);
  const { failed } = await execa(guest.command, ["--version"], { reject: false });
  const skip = failed && `needs ${guest.command}`;

  test(`the guest for ${arch} ends its machine`, { skip }, async () => {
    assert.equal(await runs(guest, "tcg", 60_000), "ended");
  });

  test(`a machine for ${arch} that does anything else is told apart`, { skip }, async () => {
    const image = guest.image.slice();
    // Another value for the device, another call to the firmware.
    image[arch === "x64" ? 1 : 4] = 0x11;
    assert.notEqual(await runs({ ...guest, image }, "tcg"), "ended");
  });
}

/** Stands in for QEMU. */
const program = (script: string) => ({
  command: "/bin/sh",
  args: () => ["-c", script],
  image: new Uint8Array(),
  exitCode: 0,
});

test("a guest hangs only if it got CPU time: on a busy computer it may simply not have run", async () => {
  assert.equal(await runs(program("exec sleep 60"), "kvm", 50), "failed");
  assert.equal(await runs(program("exit 1"), "kvm", 60_000), "failed");
  const busy = program("while :; do :; done");
  while ((await runs(busy, "kvm", 50)) !== "hung");
});

test("a guest that hung is not run again until something has changed; nothing else is remembered", async (context) => {
  const folder = await mkdtemp(join(tmpdir(), "k3s-lab-kvm-"));
  context.after(() => rm(folder, { recursive: true }));
  const note = join(folder, "cache", "note");
  let asked = 0;
  const ask = async (outcome: Outcome, identity?: string, again = false) => {
    asked = 0;
    const run = async () => {
      asked++;
      return outcome;
    };
    return [await unlessHung(identity, run, { note, again }), asked];
  };
  for (const outcome of ["ended", "failed", "ended"] as const)
    assert.deepEqual(await ask(outcome, "boot 1"), [outcome, 1]);
  assert.deepEqual(await ask("hung"), ["hung", 1]);
  assert.deepEqual(await ask("hung", "boot 1"), ["hung", 1]);
  assert.deepEqual(await ask("ended", "boot 1"), ["hung", 0]);
  assert.deepEqual(await ask("failed", "boot 2"), ["failed", 1]);
  assert.deepEqual(await ask("ended", "boot 1"), ["hung", 0]);
  // The doctor asks again.
  assert.deepEqual(await ask("ended", "boot 1", true), ["ended", 1]);
  assert.deepEqual(await ask("failed", "boot 1"), ["failed", 1]);
});

const isOpen = await access("/dev/kvm", constants.R_OK | constants.W_OK).then(
  () => true,
  () => false,
);
test("QEMU that is not installed is no KVM that boots nothing, and may be installed later in the run", {
  skip: !isOpen && "needs /dev/kvm",
}, async (context) => {
  const folder = await mkdtemp(join(tmpdir(), "k3s-lab-kvm-"));
  const { PATH } = process.env;
  context.after(async () => {
    process.env.PATH = PATH;
    await rm(folder, { recursive: true });
  });
  const guest = guests[process.arch];
  assert.ok(guest);
  process.env.PATH = folder;
  assert.equal(await kvmProblem(), `${guest.command} is not installed`);
  await writeFile(join(folder, guest.command), `#!/bin/sh\nexit ${guest.exitCode}\n`, { mode: 0o755 });
  assert.equal(await kvmProblem(), undefined);
});
