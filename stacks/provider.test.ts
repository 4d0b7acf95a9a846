import assert from "node:assert/strict";
import { test } from "node:test";
import { chooseProvider } from "./provider.ts";

const probes = (libvirt?: string, virtualbox?: string) => ({
  libvirt: async () => libvirt,
  virtualbox: async () => virtualbox,
});

test("a provider that the stack file names is taken without a look at the computer", async () => {
  const never = () => Promise.reject(new Error("probed"));
  const choice = await chooseProvider("virtualbox", { libvirt: never, virtualbox: never });
  assert.equal(choice.provider, "virtualbox");
});

test("auto prefers KVM, then VirtualBox, then containers, and says why", async () => {
  assert.equal((await chooseProvider("auto", probes())).provider, "libvirt");
  assert.deepEqual(await chooseProvider("auto", probes("no KVM")), {
    provider: "virtualbox",
    reason: "VirtualBox runs guests here, libvirt does not (no KVM)",
  });
  assert.deepEqual(await chooseProvider("auto", probes("no KVM", "no VirtualBox")), {
    provider: "docker",
    reason: "machines are containers here: no KVM; no VirtualBox",
  });
});
