import assert from "node:assert/strict";
import { mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { delimiter, join } from "node:path";
import { after, afterEach, beforeEach } from "node:test";
import { execa } from "execa";
import type { LabError } from "../../scripts/errors.ts";
import { run } from "../../scripts/host/commands.ts";
import { lookAtDocker, refuseUnfitDocker } from "../../scripts/host/docker.ts";
import { ensurePackages, type PackageHost } from "../../scripts/host/packages.ts";
import { root } from "../../scripts/paths.ts";
import { fault, refused } from "./table.ts";

// What the lab meets on other people's computers, played by programs on PATH: nothing here touches this computer.

const folder = await mkdtemp(join(tmpdir(), "k3s-lab-faults-host-"));
after(() => rm(folder, { recursive: true, force: true }));
const kept = { ...process.env };
let bin = "";
beforeEach(async () => {
  bin = await mkdtemp(join(folder, "bin-"));
  process.env.PATH = `${bin}${delimiter}${kept.PATH}`;
  delete process.env.DOCKER_HOST;
});
afterEach(() => {
  process.env = { ...kept };
});

/** Puts a program in front of the computer's own; it notes how it was called. */
const program = (name: string, script: string) =>
  writeFile(join(bin, name), `#!/bin/sh\necho "${name} $*" >>"${bin}/calls"\n${script}\n`, { mode: 0o755 });
const calls = async () =>
  (await readFile(join(bin, "calls"), "utf8").catch(() => "")).split("\n").filter(Boolean);

/** A Docker of one of the kinds that there are. */
const docker = (facts: {
  endpoint?: string;
  name?: string;
  kernel?: string;
  system?: string;
  security?: string[];
}) =>
  program(
    "docker",
    `case "$*" in
  *context*) echo '${facts.endpoint ?? "unix:///var/run/docker.sock"}' ;;
  *version*) echo 27.0.1 ;;
  *info*) printf '%s\\n' '${JSON.stringify(facts.name ?? "here")}' '${JSON.stringify(facts.kernel ?? "here")}' '${JSON.stringify(facts.system ?? "Debian")}' '${JSON.stringify(facts.security ?? [])}' ;;
  *) exit 99 ;;
esac`,
  );

const error = (work: Promise<unknown>): Promise<LabError | undefined> =>
  work.then(
    () => undefined,
    (error: LabError) => error,
  );

const kinds = {
  "rootless Docker": { security: ["name=rootless", "name=seccomp,profile=builtin"] },
  "Docker Desktop": { system: "Docker Desktop" },
  "Docker in a virtual machine (colima)": { name: "colima", kernel: "6.8.0-vm" },
};
for (const [name, facts] of Object.entries(kinds))
  refused(
    `H25: ${name} for machines in containers`,
    async () => {
      await docker({ ...facts });
      const refusal = await error(refuseUnfitDocker("machines"));
      assert.ok(
        (await calls())
          .filter((line) => !line.startsWith("{{"))
          .every((line) => /^docker (context|version|info)/.test(line)),
        "only questions",
      );
      assert.equal((await lookAtDocker("machines")).state, "refused", "the doctor says the same");
      assert.notEqual((await lookAtDocker("k3d")).state, "refused", "k3d needs only ports");
      return refusal;
    },
    /containers' addresses cannot be reached from this computer.*k3s-lab:provider/,
  );

for (const host of ["tcp://build.example:2376", "ssh://me@build.example"])
  refused(
    `H25: DOCKER_HOST=${host}`,
    async () => {
      process.env.DOCKER_HOST = host;
      await docker({});
      const refusal = await error(refuseUnfitDocker("k3d"));
      assert.deepEqual(await calls(), [], "a computer that may not answer is not asked");
      return refusal;
    },
    /build\.example.*on another computer.*unset DOCKER_HOST/,
  );
refused(
  "H25: a Docker context that names another computer",
  async () => {
    await docker({ endpoint: "ssh://me@build.example" });
    return await error(refuseUnfitDocker("machines"));
  },
  /on another computer.*docker context use default/,
);

fault("C3: a Docker that hangs is not 'stopped': no second one is started", async () => {
  await program(
    "docker",
    'case "$*" in *version*) echo "Error response from daemon: context deadline exceeded" >&2; exit 1;; *) exit 1;; esac',
  );
  await program("dockerd", "exit 0");
  const found = await lookAtDocker("machines");
  assert.equal(found.state, "refused");
  assert.match(found.state === "refused" ? found.reason.message : "", /is there .* and does not answer/);
  assert.equal((await calls()).filter((line) => line.startsWith("dockerd")).length, 0);
  return { happened: "an error that says what to wait for", lost: "nothing" };
});

/** A computer that has these programs and no more. */
const computer = (osRelease: string, programs: readonly string[]): PackageHost => ({
  run,
  root: true,
  systemd: true,
  exists: async () => false,
  hasProgram: async (name) => programs.includes(name),
  osRelease,
});

fault("H21: Fedora with all programs, and with one missing", async () => {
  await program("dpkg-query", "exit 1");
  const fedora = "ID=fedora\n";
  await ensurePackages(
    ["vagrant", "openssh-client", "iproute2"],
    () => {},
    computer(fedora, ["vagrant", "ssh", "ssh-keygen", "ip"]),
  );
  const lacking = await error(ensurePackages(["vagrant", "iproute2"], () => {}, computer(fedora, ["ip"])));
  assert.match(lacking?.message ?? "", /missing.*: vagrant\. .*\n {2}sudo dnf install vagrant$/s);
  return { happened: "goes on; names vagrant and dnf", lost: "nothing" };
});

fault("Docker's own packages are not replaced by Debian's", async () => {
  await program("dpkg-query", "exit 1");
  await program("apt-get", "exit 1");
  await ensurePackages(["docker.io"], () => {}, computer("ID=ubuntu\n", ["apt-get", "docker", "dockerd"]));
  assert.deepEqual(
    (await calls()).filter((line) => line.startsWith("apt-get")),
    [],
  );
  return { happened: "apt was not called", lost: "nothing" };
});

fault("apt would remove a package of the user's", async () => {
  await program("dpkg-query", "exit 1");
  await program(
    "apt-get",
    'case "$*" in *--no-remove*) echo "E: Packages need to be removed but remove is disabled." >&2; exit 100;; esac',
  );
  const said = await error(ensurePackages(["vagrant"], () => {}, computer("ID=debian\n", ["apt-get"])));
  assert.match(said?.message ?? "", /remove is disabled/);
  return { happened: "exit 1 with apt's words", lost: "nothing" };
});

fault("H31: git clone -c core.autocrlf=true", async () => {
  const source = join(folder, "source");
  const clone = join(folder, "clone");
  await mkdir(source);
  const git = (...args: string[]) =>
    execa("git", ["-c", "user.name=a", "-c", "user.email=a@b", ...args], { cwd: source });
  const { stdout } = await execa("git", ["ls-files", "-z", "--cached", "--others", "--exclude-standard"], {
    cwd: root,
  });
  for (const file of stdout
    .split("\0")
    .filter((name) => /(^\.gitattributes|\.sh|^scripts\/lab|Vagrantfile|entry)$/.test(name))) {
    await mkdir(join(source, file, ".."), { recursive: true });
    await writeFile(join(source, file), await readFile(join(root, file)));
  }
  await git("init", "--quiet");
  await git("add", ".");
  await git("commit", "--quiet", "--message", "all");
  await execa("git", ["clone", "--quiet", "-c", "core.autocrlf=true", source, clone]);
  for (const file of ["scripts/lab", "scripts/host/apt.sh", "vagrant/k3s.sh", "vagrant/Vagrantfile"])
    assert.ok(!(await readFile(join(clone, file), "utf8")).includes("\r"), file);
  return { happened: "scripts keep their line ends", lost: "nothing" };
});
