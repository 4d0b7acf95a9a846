import assert from "node:assert/strict";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { chooseProvider, configuredProvider, packagesOf } from "./provider.ts";

const probes = (libvirt?: string, virtualbox?: string) => ({
  libvirt: async () => libvirt,
  virtualbox: async () => virtualbox,
});

test("a provider in the stack file is used without probing", async () => {
  const never = () => Promise.reject(new Error("probed"));
  const choice = await chooseProvider("virtualbox", undefined, { libvirt: never, virtualbox: never });
  assert.equal(choice.provider, "virtualbox");
});

test("auto keeps its choice while the lab is up; an invalid value is ignored", async () => {
  assert.equal((await chooseProvider("auto", "docker", probes())).provider, "docker");
  assert.equal((await chooseProvider("auto", "vmware", probes())).provider, "libvirt");
  assert.equal(configuredProvider({ provider: "auto" }, { autoProvider: "docker" }), "docker");
  assert.equal(configuredProvider({ provider: "auto" }, {}), undefined);
  assert.equal(configuredProvider({ provider: "hosts" }, { autoProvider: "docker" }), "hosts");
});

test("Ansible is needed only where it installs K3s", () => {
  assert.deepEqual(packagesOf("hosts", { provisioner: "shell" }), ["openssh-client", "iproute2"]);
  assert.ok(packagesOf("docker", { provisioner: "ansible" }).includes("ansible-core"));
});

test("auto prefers KVM, then VirtualBox, then containers, and says why", async () => {
  assert.equal((await chooseProvider("auto", undefined, probes())).provider, "libvirt");
  assert.deepEqual(await chooseProvider("auto", undefined, probes("no KVM")), {
    provider: "virtualbox",
    reason: "VirtualBox runs guests here, libvirt does not (no KVM)",
  });
  assert.deepEqual(await chooseProvider("auto", undefined, probes("no KVM", "no VirtualBox")), {
    provider: "docker",
    reason: "machines are containers here: no KVM; no VirtualBox",
  });
});

/** The programs of a computer that has these and no others. */
async function withPrograms(context: TestContext, programs: Readonly<Record<string, string>>): Promise<void> {
  const folder = await mkdtemp(join(tmpdir(), "k3s-lab-provider-"));
  const before = process.env.PATH;
  context.after(async () => {
    process.env.PATH = before;
    await rm(folder, { recursive: true });
  });
  for (const [name, script] of Object.entries(programs))
    await writeFile(join(folder, name), `#!/bin/sh\n${script}\n`, { mode: 0o755 });
  process.env.PATH = folder;
}

test("VirtualBox is chosen if its driver works and libvirt is not installed", async (context) => {
  await withPrograms(context, { VBoxManage: "echo 7.0.20r163906" });
  assert.equal((await chooseProvider("auto")).provider, "virtualbox");
});

test("VirtualBox without its kernel driver is not chosen", async (context) => {
  await withPrograms(context, { VBoxManage: '[ "$1" = --version ]' });
  assert.deepEqual(await chooseProvider("auto"), {
    provider: "docker",
    reason:
      "machines are containers here: libvirt is not installed; VirtualBox's kernel driver does not answer",
  });
});
