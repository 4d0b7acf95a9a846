import assert from "node:assert/strict";
import { test } from "node:test";
import { execa } from "execa";
import { guests, runs } from "./kvm.ts";

// QEMU's emulation stands in for KVM: it shows that the programs end their machines, on any computer.
for (const arch of ["x64", "arm64"] as const) {
  const guest = guests[arch];
  assert.ok(guest);
  const { failed } = await execa(guest.command, ["--version"], { reject: false });
  const skip = failed && `needs ${guest.command}`;

  test(`the guest for ${arch} ends its machine`, { skip }, async () => {
    assert.equal(await runs(guest, "tcg", 60_000), true);
  });

  test(`a machine for ${arch} that does something else is told apart`, { skip }, async () => {
    const image = guest.image.slice();
    // Another value for the device, another call to the firmware.
    image[arch === "x64" ? 1 : 4] = 0x11;
    assert.equal(await runs({ ...guest, image }, "tcg"), false);
  });
}
