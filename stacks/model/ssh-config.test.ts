import assert from "node:assert/strict";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test as testOf } from "node:test";
import { execa } from "execa";
import type { Provider } from "./provider.ts";
import { knownHost, sshConfig } from "./ssh-config.ts";

const folder = await mkdtemp(join(tmpdir(), "ssh-config-"));
after(() => rm(folder, { recursive: true }));

// It runs for no user without a name.
const { failed } = await execa("ssh", ["-G", "-F", "/dev/null", "pi"], { reject: false });
const test = failed ? testOf.skip : testOf;

const machine = { name: "pi", ip: "10.0.0.5" };
const hostKey = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ6t2lH0kKzUq3mO4f5b3cZ7gG8sT1nW0cP9vQ2rXyZa";

/** What ssh itself makes of the configuration, of some options. */
async function understood(text: string, host: string, ...options: string[]) {
  const file = join(folder, "config");
  await writeFile(file, text);
  const { stdout } = await execa("ssh", ["-G", "-F", file, host], { env: { K3S_LAB_ROOT: "/lab" } });
  const lines = stdout
    .replaceAll(/\$\{K3S_LAB_ROOT\}/g, "/lab")
    .split("\n")
    .map((line) => line.split(/ (.*)/) as [string, string]);
  return Object.fromEntries(lines.filter(([name]) => options.includes(name)));
}

for (const [provider, key] of [
  ["docker", "ssh/id_ed25519"],
  ["libvirt", "cluster/vagrant/machines/pi/libvirt/private_key"],
  ["virtualbox", "cluster/vagrant/machines/pi/virtualbox/private_key"],
] satisfies [Provider, string][])
  test(`a ${provider} machine is reached at its address with its own key`, async () => {
    const found = await understood(
      sshConfig("cluster", machine, provider),
      "pi.cluster",
      ...["hostname", "user", "identityfile", "identitiesonly", "batchmode", "stricthostkeychecking"],
      ...["hostkeyalias", "userknownhostsfile"],
    );
    assert.deepEqual(found, {
      hostname: "10.0.0.5",
      user: "vagrant",
      identityfile: `/lab/.lab/${key}`,
      identitiesonly: "yes",
      batchmode: "yes",
      stricthostkeychecking: "accept-new",
      hostkeyalias: "pi.cluster",
      userknownhostsfile: "/lab/.lab/ssh/pi.cluster/known_hosts",
    });
  });

test("a host is reached as the stack file says", async () => {
  const ssh = { user: "me", address: "pi.example", port: 2222, key: "~/.ssh/pi" };
  const options = ["hostname", "port", "user", "identityfile", "proxyjump"];
  assert.deepEqual(
    await understood(sshConfig("cluster", { ...machine, ssh }, "hosts"), "pi.cluster", ...options),
    {
      hostname: "pi.example",
      port: "2222",
      user: "me",
      identityfile: "~/.ssh/pi",
    },
  );
});

test("a host behind a jump host uses the same user by default", async () => {
  const config = (jump: string) =>
    sshConfig("cluster", { ...machine, ssh: { user: "me", key: "/keys/pi", jump } }, "hosts");
  const options = ["hostname", "port", "user", "identityfile", "proxyjump"];
  const host = await understood(config("gate.example"), "pi.cluster", ...options);
  assert.equal(host.proxyjump, "jump.pi.cluster");
  assert.equal(host.hostname, "10.0.0.5");
  assert.deepEqual(await understood(config("gate.example"), "jump.pi.cluster", ...options), {
    hostname: "gate.example",
    port: "22",
    user: "me",
    identityfile: "/keys/pi",
  });
  const other = await understood(config("you@gate.example:2200"), "jump.pi.cluster", ...options);
  assert.deepEqual([other.user, other.port], ["you", "2200"]);
});

test("only a host key from the stack file is accepted", async () => {
  const found = await understood(
    sshConfig("cluster", { ...machine, ssh: { user: "me", hostKey } }, "hosts"),
    "pi.cluster",
    ...["stricthostkeychecking", "userknownhostsfile", "globalknownhostsfile"],
  );
  // machine.sh writes the key there; KnownHostsCommand is newer than the ssh of some.
  assert.deepEqual(found, {
    stricthostkeychecking: "true",
    userknownhostsfile: "/lab/.lab/ssh/pi.cluster/known_hosts",
    globalknownhostsfile: "/dev/null",
  });
  assert.equal(knownHost("pi.cluster", hostKey), `pi.cluster ${hostKey}\n`);
});

test("H13: a jump host's key is recorded separately", async () => {
  const text = sshConfig("cluster", { ...machine, ssh: { user: "me", jump: "gate" } }, "hosts");
  assert.deepEqual(await understood(text, "jump.pi.cluster", "userknownhostsfile"), {
    userknownhostsfile: "/lab/.lab/ssh/pi.cluster/known_hosts.jump",
  });
  assert.deepEqual(await understood(text, "pi.cluster", "userknownhostsfile"), {
    userknownhostsfile: "/lab/.lab/ssh/pi.cluster/known_hosts",
  });
});

test("with an explicit key, ssh-agent's keys are not offered", async () => {
  const text = sshConfig(
    "cluster",
    { ...machine, ssh: { user: "me", key: "/keys/pi", jump: "gate" } },
    "hosts",
  );
  for (const name of ["pi.cluster", "jump.pi.cluster"])
    assert.deepEqual(await understood(text, name, "identitiesonly"), { identitiesonly: "yes" });
});

test("a key in the checkout is found from any folder", async () => {
  const text = sshConfig("cluster", { ...machine, ssh: { user: "me", key: "keys/pi" } }, "hosts");
  assert.equal((await understood(text, "pi.cluster", "identityfile")).identityfile, "/lab/keys/pi");
});
