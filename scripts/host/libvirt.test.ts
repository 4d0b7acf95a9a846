import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { chmod, mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { processId } from "../../stacks/lib/processes.ts";
import type { Run } from "./commands.ts";
import { fakeRun } from "./fake-run.ts";
import { hiddenFolder, inTheWay, networks, stopLibvirt, volumeName, volumeNames } from "./libvirt.ts";

const box = { name: "k3s-lab/machine-1", version: "1.0.0" };

test("the lab's network has this computer's address, no DHCP, and leads nowhere else", () => {
  const [, [name, xml]] = networks({ network: "10.9.8.0/22", internet: true, box }) as [
    unknown,
    [string, string],
  ];
  assert.equal(name, "k3s-lab");
  assert.match(xml, /<ip address="10\.9\.8\.1" netmask="255\.255\.252\.0"><\/ip>/);
  assert.doesNotMatch(xml, /forward|dhcp/);
});

for (const internet of [true, false])
  test(`Vagrant's network ${internet ? "leads on" : "leads nowhere"}, and gives addresses`, () => {
    const [[name, xml]] = networks({ network: "10.9.8.0/24", internet, box }) as [[string, string]];
    assert.equal(name, "k3s-lab-management");
    assert.equal(xml.includes('<forward mode="nat"/>'), internet);
    assert.match(xml, /<range start="192\.168\.119\.2" end="192\.168\.119\.254"\/>/);
  });

test("a box's disk has the name by which Vagrant looks for it", () => {
  assert.equal(volumeName(box), "k3s-lab-VAGRANTSLASH-machine-1_vagrant_box_image_1.0.0_box.img");
});

test("volumes are read from virsh's list", () => {
  assert.deepEqual(volumeNames(" a.img   /pool/a.img\n b.img   /pool/b.img\n\n"), ["a.img", "b.img"]);
  assert.deepEqual(volumeNames(""), []);
});

/** Where the labs of a test find each other. */
const shared = () => mkdtemp(join(tmpdir(), "k3s-lab-libvirt-"));

test("networks and pool stay while machines of another checkout use them", async () => {
  const { run, commands } = fakeRun(
    [/^virsh --version$/, {}],
    [/ uri$/, {}],
    [/ list --all --name$/, { stdout: "someone's\nk3s-lab-cluster-server\n" }],
  );
  assert.deepEqual(await stopLibvirt(() => {}, run, await shared()), {
    state: "kept",
    by: ["k3s-lab-cluster-server"],
  });
  assert.equal(commands.length, 3);
});

test("networks and pool stay while another lab is about to make its machines", async () => {
  const folder = await shared();
  const users = join(folder, "libvirt-users");
  await mkdir(users);
  const other = spawn("sleep", ["60"]);
  try {
    const { startTime } = (await processId(other.pid ?? 0)) ?? {};
    await writeFile(join(users, `${other.pid}-${startTime}`), "");
    await writeFile(join(users, `${other.pid}-1`), "");
    const { run, commands } = fakeRun([/^virsh --version$/, {}]);
    const by = [`process ${other.pid} (lab)`];
    assert.deepEqual(await stopLibvirt(() => {}, run, folder), { state: "kept", by });
    assert.equal(commands.length, 1);
  } finally {
    other.kill();
  }
});

test("one lab that takes libvirt's networks away keeps another out until it is done", async () => {
  const folder = await shared();
  const order: string[] = [];
  const slow =
    (name: string): Run =>
    async (command) => {
      const line = command.join(" ");
      if (line.endsWith(" uri")) order.push(`${name} begins`);
      await new Promise((resolve) => setTimeout(resolve, 5));
      if (line.includes(" pool-destroy ")) order.push(`${name} ends`);
      return { exitCode: 0, stdout: "", stderr: "" };
    };
  await Promise.all(["one", "two"].map((name) => stopLibvirt(() => {}, slow(name), folder)));
  const [first = ""] = order[0]?.split(" ") ?? [];
  assert.deepEqual(order.slice(0, 2), [`${first} begins`, `${first} ends`]);
  assert.equal(order.length, 4);
});

test("a folder that keeps QEMU from the box's kernel is found", async () => {
  const folder = await mkdtemp(join(tmpdir(), "hidden-"));
  await mkdir(join(folder, "home", "boxes"), { recursive: true });
  await chmod(folder, 0o755);
  const kernel = join(folder, "home", "boxes", "vmlinuz");
  assert.equal(await hiddenFolder(kernel), undefined);
  await chmod(join(folder, "home"), 0o700);
  assert.equal(await hiddenFolder(kernel), join(folder, "home"));
  await rm(folder, { recursive: true });
});

test("C3: a list of machines that fails is not an empty one: networks and pool stay", async () => {
  const { run, commands } = fakeRun(
    [/^virsh --version$/, {}],
    [/ uri$/, {}],
    [/ list --all --name$/, { exitCode: 1, stderr: "error: Disconnected from qemu:///system\n" }],
  );
  await assert.rejects(
    stopLibvirt(() => {}, run, await shared()),
    /cannot be asked for its machines: error: Disconnected .* stay/,
  );
  assert.deepEqual(
    commands.filter((line) => /destroy|delete/.test(line)),
    [],
  );
});

test("a route that libvirt takes for somebody's use of the network is named, with what to do", async () => {
  const routes = [
    { type: "blackhole", dst: "192.168.42.0/24", metric: 7 },
    { dst: "10.0.0.0/8", dev: "eth0" },
  ];
  const { run } = fakeRun([/^ip -json -4 route show table all$/, { stdout: JSON.stringify(routes) }]);
  assert.equal(
    await inTheWay("192.168.42.0/24", run),
    '\nIn its way: the route "blackhole 192.168.42.0/24 metric 7". If you do not need it while the lab is up, remove it:\n  sudo ip route del blackhole 192.168.42.0/24 metric 7\nOtherwise set another k3s-lab:network.',
  );
});
