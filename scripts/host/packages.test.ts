import assert from "node:assert/strict";
import { test } from "node:test";
import { LabError } from "../errors.ts";
import { type Answer, fakeRun } from "./fake-run.ts";
import { ensurePackages, type PackageHost } from "./packages.ts";

const query = (stdout: string): Answer => [/^dpkg-query /, { exitCode: stdout ? 0 : 1, stdout }];
const aptInstall =
  "env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 -q install -y --no-install-recommends";
const aptUpdate = "env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 -q update";

function host(answers: readonly Answer[], settings: Partial<PackageHost> = {}) {
  const fake = fakeRun(...answers);
  const lines: string[] = [];
  const packageHost: PackageHost = {
    run: fake.run,
    root: true,
    systemd: true,
    hasLists: async () => true,
    exists: async () => false,
    ...settings,
  };
  return {
    ...fake,
    lines,
    ensure: (...names: string[]) => ensurePackages(names, (line) => lines.push(line), packageHost),
  };
}

test("touches nothing where every package is installed", async () => {
  const { ensure, commands, lines } = host([query("vagrant installed\nsocat installed\n")]);
  await ensure("vagrant", "socat");
  assert.equal(commands.length, 1);
  assert.deepEqual(lines, []);
});

test("installs what is missing, removed or half configured, and says so", async () => {
  const { ensure, commands, lines } = host([
    query("socat installed\nvagrant config-files\nethtool half-configured\n"),
    [
      /install/,
      { stdout: "Get:1 http://x bookworm/main amd64 vagrant all 2.3\nSetting up vagrant (2.3) ...\n" },
    ],
  ]);
  await ensure("vagrant", "socat", "ethtool", "mmdebstrap");
  assert.deepEqual(commands.slice(1), [`${aptInstall} vagrant ethtool mmdebstrap`]);
  assert.equal(lines[0], "installing Debian packages: vagrant ethtool mmdebstrap");
  assert.equal(lines.at(-1), "setting up vagrant");
});

test("uses sudo where it asks no password", async () => {
  const { ensure, commands } = host([query(""), [/^sudo -n /, {}]], { root: false });
  await ensure("vagrant");
  assert.deepEqual(commands.slice(1), ["sudo -n true", `sudo -n ${aptInstall} vagrant`]);
});

test("prints the exact command where root is out of reach", async () => {
  const { ensure, commands } = host([query(""), [/^sudo -n true$/, { exitCode: 1 }]], { root: false });
  await assert.rejects(ensure("vagrant", "docker.io"), (error: LabError) => {
    assert.ok(error instanceof LabError);
    assert.match(
      error.message,
      /^ {2}sudo apt-get update && sudo apt-get install -y --no-install-recommends vagrant docker\.io$/m,
    );
    return true;
  });
  assert.equal(commands.filter((line) => line.includes("apt-get")).length, 0);
});

test("names the packages where this is no Debian", async () => {
  const { ensure } = host([[/^dpkg-query/, { exitCode: undefined, stderr: "ENOENT" }]]);
  await assert.rejects(ensure("vagrant", "socat"), /no Debian packages.*vagrant, socat/);
});

test("fetches apt's lists first where there are none", async () => {
  const { ensure, commands } = host([query(""), [/apt-get/, {}]], { hasLists: async () => false });
  await ensure("vagrant");
  assert.deepEqual(commands.slice(1), [aptUpdate, `${aptInstall} vagrant`]);
});

test("does not try again with lists that are fresh", async () => {
  const { ensure, commands } = host([query(""), [/update$/, {}], [/install/, { exitCode: 100 }]], {
    hasLists: async () => false,
  });
  await assert.rejects(ensure("vagrant"));
  assert.deepEqual(commands.slice(1), [aptUpdate, `${aptInstall} vagrant`]);
});

test("fetches apt's lists anew when they are too old, and tries again once", async () => {
  const { ensure, commands } = host([
    query(""),
    [/update$/, {}],
    [/install/, { exitCode: 100, stderr: "E: 404  Not Found" }],
  ]);
  await assert.rejects(ensure("vagrant"), /could not be installed:\nE: 404 {2}Not Found\n/);
  assert.deepEqual(commands.slice(1), [`${aptInstall} vagrant`, aptUpdate, `${aptInstall} vagrant`]);
});

test("lets packages start no services where there is no systemd, even when apt fails", async () => {
  const { ensure, commands, inputs } = host(
    [query(""), [/apt-get/, { exitCode: 1, stderr: "no" }], [/policy-rc\.d$/, {}]],
    { systemd: false },
  );
  await assert.rejects(ensure("docker.io"));
  assert.equal(commands[1], "install -m 0755 /dev/stdin /usr/sbin/policy-rc.d");
  assert.match(inputs[0] ?? "", /^#!\/bin\/sh\n.*\nexit 101\n$/);
  assert.equal(commands.at(-1), "rm -f /usr/sbin/policy-rc.d");
});

test("leaves the policy of somebody else in place", async () => {
  const { ensure, commands } = host(
    [query(""), [/^cat/, { stdout: "#!/bin/sh\nexit 104\n" }], [/apt-get/, {}]],
    { systemd: false, exists: async () => true },
  );
  await ensure("docker.io");
  assert.deepEqual(
    commands.filter((line) => line.includes("policy-rc.d")),
    ["cat /usr/sbin/policy-rc.d"],
  );
});
