import assert from "node:assert/strict";
import { chmod, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, afterEach, test } from "node:test";
import { labsHere } from "./labs-here.ts";

const bin = await mkdtemp(join(tmpdir(), "k3s-lab-here-"));
const { PATH } = process.env;
const none =
  "echo 'Cannot connect to the Docker daemon at unix:///none.sock. Is the docker daemon running?' >&2; exit 1";
const noLibvirt =
  "case $* in *--version) echo 9.0.0 ;; *) echo \"error: Failed to connect socket to '/none': No such file or directory\" >&2; exit 1 ;; esac";

/** Puts programs before those of this computer: a docker, a virsh and a VBoxManage of these lines. */
async function programs({ docker = none, virsh = noLibvirt, VBoxManage = "" } = {}): Promise<void> {
  for (const [name, lines] of Object.entries({ docker, virsh, VBoxManage })) {
    await writeFile(join(bin, name), `#!/bin/sh\n${lines}\n`);
    await chmod(join(bin, name), 0o755);
  }
  process.env.PATH = `${bin}:${PATH}`;
}
afterEach(() => {
  process.env.PATH = PATH;
});
after(() => rm(bin, { recursive: true }));

test("C11: finds labs of any checkout, running or not, in any network, and nothing else", async () => {
  const lines = [
    "k3s-lab-cluster-two-server\tan-id\t/home/me/lab\t",
    "k3s-lab-old\t\t/home/me/old\t",
    "k3d-k3d-server-0\t\t\tk3d",
    "k3d-mine-server-0\t\t\tmine",
    "postgres\t<no value>\t<no value>\t<no value>",
  ];
  await programs({
    docker: `cat <<'END'\n${lines.join("\n")}\nEND`,
    virsh: `case $* in
*"list --all --name") echo k3s-lab-cluster-server; echo windows ;;
*"domstate "*) echo "shut off" ;;
*"desc "*) echo "k3s-lab.id=an-id k3s-lab.stack=cluster k3s-lab.machine=server k3s-lab.checkout=/home/me/my lab" ;;
esac`,
    VBoxManage: `case $* in
"list vms") echo '"k3s-lab-cluster-agent" {1}'; echo '"windows" {2}' ;;
showvminfo*) echo 'VMState="poweroff"' ;;
esac`,
  });
  assert.deepEqual(await labsHere(), [
    "the container k3s-lab-cluster-two-server of /home/me/lab",
    "the container k3s-lab-old of /home/me/old",
    "the container k3d-k3d-server-0",
    "the virtual machine k3s-lab-cluster-server of /home/me/my lab",
    "the virtual machine k3s-lab-cluster-agent",
  ]);
});

test("without a provider or a daemon there is no lab", async () => {
  await programs();
  assert.deepEqual(await labsHere(), []);
  await programs({
    docker:
      "echo 'failed to connect to the docker API at unix:///none.sock; check if the path is correct and if the daemon is running: dial unix /none.sock: connect: no such file or directory' >&2; exit 1",
  });
  assert.deepEqual(await labsHere(), []);
  // Where a container mounts a socket that is not there, Docker makes a folder of that name.
  await programs({ docker: none.replace("/none.sock", bin) });
  assert.deepEqual(await labsHere(), []);
  process.env.PATH = join(bin, "none");
  assert.deepEqual(await labsHere(), []);
});

for (const [what, some] of [
  ["a Docker that hangs", { docker: "kill -9 $$" }],
  ["a Docker that fails", { docker: "echo 'context deadline exceeded' >&2; exit 1" }],
  ["a Docker that refuses this user", { docker: "echo 'permission denied' >&2; exit 1" }],
  [
    "a Docker that was killed and left its socket",
    { docker: none.replace("/none.sock", join(bin, "docker")) },
  ],
  [
    "a current Docker that was killed",
    {
      docker: `echo 'failed to connect to the docker API at unix://${join(bin, "docker")}; check if the path is correct and if the daemon is running' >&2; exit 1`,
    },
  ],
  [
    "a libvirt that refuses this user",
    { virsh: noLibvirt.replace("No such file or directory", "Permission denied") },
  ],
  ["a libvirt that fails", { virsh: "echo 'error: Connection refused' >&2; exit 1" }],
  ["a libvirt that lists nothing", { virsh: "case $* in *list*) exit 1 ;; esac" }],
  ["a VirtualBox that fails", { VBoxManage: 'case $* in "list vms") exit 1 ;; esac' }],
] as const)
  test(`C11: ${what} may have a lab`, async () => {
    await programs(some);
    await assert.rejects(labsHere(), { name: "LabError" });
  });
