import assert from "node:assert/strict";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { execa } from "execa";
import { isDiskFull, LabError } from "../../stacks/lib/errors.ts";
import { type Answer, fakeRun } from "./fake-run.ts";
import { adviceWithoutApt, ensurePackages, type PackageHost } from "./packages.ts";

const script = join(import.meta.dirname, "apt.sh");
const query = (stdout: string): Answer => [/^dpkg-query /, { exitCode: stdout ? 0 : 1, stdout }];
const aptInstall = `sh ${script} services install -y --no-install-recommends --no-remove`;
const aptUpdate = `sh ${script} services update`;

function host(
  answers: readonly Answer[],
  { programs = ["apt-get"], ...settings }: Partial<PackageHost> & { programs?: readonly string[] } = {},
) {
  const fake = fakeRun(...answers);
  const lines: string[] = [];
  const packageHost: PackageHost = {
    run: fake.run,
    root: true,
    systemd: true,
    has: async (name) => programs.includes(name),
    osRelease: "",
    ...settings,
  };
  return {
    ...fake,
    lines,
    ensure: (...names: string[]) => ensurePackages(names, (line) => lines.push(line), packageHost),
  };
}

test("changes nothing if every package is installed", async () => {
  const { ensure, commands, lines } = host([query("vagrant installed\nsocat installed\n")]);
  await ensure("vagrant", "socat");
  assert.equal(commands.length, 1);
  assert.deepEqual(lines, []);
});

test("changes nothing if the programs come from elsewhere, such as Docker's own packages", async () => {
  const { ensure, commands } = host([query("")], {
    programs: ["apt-get", "docker", "dockerd", "ssh", "ssh-keygen"],
  });
  await ensure("docker.io", "openssh-client");
  assert.equal(commands.length, 1);
});

test("a program counts as missing if its package contains several and one is absent", async () => {
  const { ensure } = host([query(""), [/apt\.sh/, {}]], { programs: ["apt-get", "docker"] });
  await ensure("docker.io");
});

test("installs what is missing, removed or half-configured, and reports it", async () => {
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

test("uses sudo if it needs no password, and names the proxies that it must keep", async () => {
  const before = process.env.https_proxy;
  process.env.https_proxy = "http://me:secret@proxy.example";
  try {
    const { ensure, commands } = host([query(""), [/^sudo -n /, {}]], { root: false });
    await ensure("vagrant");
    assert.equal(commands[1], "sudo -n true");
    assert.match(
      commands[2] ?? "",
      /^sudo -n --preserve-env=\S*https_proxy\S* sh \S+apt\.sh services install/,
    );
    assert.ok(!commands.join().includes("secret"));
  } finally {
    if (before === undefined) delete process.env.https_proxy;
    else process.env.https_proxy = before;
  }
});

test("prints the exact command if root is not available", async () => {
  const { ensure, commands } = host([query(""), [/^sudo -n true$/, { exitCode: 1 }]], { root: false });
  await assert.rejects(ensure("vagrant", "docker.io"), (error: LabError) => {
    assert.ok(error instanceof LabError);
    assert.match(
      error.message,
      /^ {2}sudo apt-get update && sudo apt-get install -y --no-install-recommends --no-remove vagrant docker\.io$/m,
    );
    return true;
  });
  assert.equal(commands.filter((line) => line.includes("apt")).length, 0);
});

const missingDpkg: Answer = [/^dpkg-query/, { exitCode: undefined, ended: "missing" }];

test("without apt, existing programs are used, and missing ones are named with their packages", async () => {
  const fedora = { osRelease: 'ID=fedora\nNAME="Fedora Linux"\n' };
  const there = host([missingDpkg], { ...fedora, programs: ["vagrant", "ssh", "ssh-keygen", "ip"] });
  await there.ensure("vagrant", "openssh-client", "iproute2");
  const lacking = host([missingDpkg], { ...fedora, programs: ["vagrant"] });
  await assert.rejects(
    lacking.ensure("vagrant", "openssh-client", "iproute2"),
    /: ssh, ssh-keygen, ip\. Install them, then try again:\n {2}sudo dnf install openssh-clients iproute$/,
  );
});

test("each family of distributions has its own package names", () => {
  const advice = (osRelease: string) => adviceWithoutApt(["docker.io", "iproute2"], osRelease);
  assert.match(
    advice('ID="rocky"\nID_LIKE="rhel centos fedora"\n'),
    /\n {2}sudo dnf install moby-engine iproute$/,
  );
  assert.match(advice("ID=manjaro\nID_LIKE=arch\n"), /\n {2}sudo pacman -S --needed docker iproute2$/);
  assert.match(advice('ID="opensuse-leap"\n'), /\n {2}sudo zypper install docker iproute2$/);
  assert.match(
    advice("ID=void\n"),
    /: docker, dockerd, ip\. Install them with this computer's package manager/,
  );
});

test("a dpkg that cannot answer is an error, not a list of missing packages", async () => {
  const { ensure } = host([[/^dpkg-query/, { exitCode: 2, stderr: "dpkg-query: error: parsing file" }]]);
  await assert.rejects(ensure("vagrant"), /dpkg did not say.*parsing file.*dpkg --audit/);
});

test("fetches apt's lists if there are none or old ones, and retries once", async () => {
  const { ensure, commands } = host([
    query(""),
    [/update$/, {}],
    [/install/, { exitCode: 100, stderr: "E: 404  Not Found" }],
  ]);
  await assert.rejects(ensure("vagrant"), /could not be installed:\nE: 404 {2}Not Found\n/);
  assert.deepEqual(commands.slice(1), [`${aptInstall} vagrant`, aptUpdate, `${aptInstall} vagrant`]);
});

test("a full disk gives exit code 4", async () => {
  const { ensure } = host([
    query(""),
    [
      /apt\.sh/,
      { exitCode: 100, stderr: "E: You don't have enough free space in /var/cache/apt/archives/." },
    ],
  ]);
  await assert.rejects(ensure("vagrant"), isDiskFull);
});

test("keeps packages from starting services without systemd, and cleans up even if apt fails", async () => {
  const { ensure, commands } = host([query(""), [/apt\.sh/, { exitCode: 1, stderr: "no" }]], {
    systemd: false,
  });
  await assert.rejects(ensure("docker.io"));
  assert.match(commands[1] ?? "", /apt\.sh no-services install/);
  assert.match(commands.at(-1) ?? "", /apt\.sh no-services$/);
});

const folder = await mkdtemp(join(tmpdir(), "k3s-lab-apt-"));
after(() => rm(folder, { recursive: true, force: true }));

/** Runs apt.sh with an apt-get that runs `script`. */
async function apt(name: string, program: string, args: readonly string[]) {
  const policy = join(folder, name);
  await writeFile(join(folder, "apt-get"), `#!/bin/sh\n${program}\n`, { mode: 0o755 });
  const env = { POLICY: policy, PATH: `${folder}:${process.env.PATH}` };
  const child = execa("sh", [script, ...args], { env, reject: false });
  const asked = async () => (await execa("sh", [policy], { reject: false })).exitCode;
  return { policy, child, asked, tidy: () => execa("sh", [script, "services"], { env }) };
}

test("apt.sh: services cannot start while apt-get runs, and can afterwards", async () => {
  const { child, policy, tidy } = await apt("runs", 'sh "$POLICY"; echo $?; echo "$*"', [
    "no-services",
    "install",
    "x",
  ]);
  const { stdout } = await child;
  assert.match(stdout, /^101\n-q -o DPkg::Lock::Timeout=300 .* install x$/);
  await tidy();
  await assert.rejects(readFile(policy));
});

test("apt.sh: the policy of a killed apt-get forbids nothing and removes itself", async () => {
  const { child, policy, asked } = await apt("killed", "kill -9 $$", ["no-services", "install", "x"]);
  await child;
  assert.match(await readFile(policy, "utf8"), /k3s-lab/);
  assert.equal(await asked(), 0);
  await assert.rejects(readFile(policy));
});

test("apt.sh: another policy is neither changed nor removed", async () => {
  await writeFile(join(folder, "foreign"), "#!/bin/sh\nexit 104\n");
  const { child, policy, tidy } = await apt("foreign", "true", ["no-services", "install", "x"]);
  await child;
  await tidy();
  assert.equal(await readFile(policy, "utf8"), "#!/bin/sh\nexit 104\n");
});
