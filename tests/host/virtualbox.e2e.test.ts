import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { mkdir, readFile, rm, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { before, test } from "node:test";
import { execa } from "execa";
import { cacheDir, root } from "../../stacks/lib/paths.ts";
import type { MachineObservation } from "../../stacks/observe/machine-list.ts";
import { suite } from "../steps.ts";
import { checkout } from "../vagrant/checkout.ts";

// Vagrant, its VirtualBox driver and the Vagrantfile are the real ones; VBoxManage is played by vboxmanage.ts. No machine
// boots: Vagrant is told not to wait for long, and ends when nobody answers at the machine's ssh port.
const installed = await execa("vagrant", ["--version"], { reject: false });
const skip = installed.failed && "needs Vagrant";
const networksConf = "/etc/vbox/networks.conf";

const machines = {
  boss: { name: "boss", role: "server", ip: "192.168.60.10", cpus: 1, memory: 900 },
  hand: { name: "hand", role: "agent", ip: "192.168.60.11", cpus: 3, memory: 700 },
};

/** A checkout whose VirtualBox is the stand-in, with a box that holds nothing. */
async function virtualBox(stackFile?: string) {
  const lab = await checkout(stackFile);
  const folder = lab.file("virtualbox");
  const standIn = join(import.meta.dirname, "vboxmanage.ts");
  // It is called hundreds of times, and starts in a third of the time with what Node.js has compiled before.
  const compiled = `NODE_COMPILE_CACHE='${join(cacheDir, "node-compile-cache")}'`;
  await lab.program(
    "VBoxManage",
    `${compiled} exec '${process.execPath}' '${standIn}' '${folder}' 7.0.20 "$@"`,
  );
  // No machine boots, and so none is waited for.
  await lab.program("ssh", "exit 0");
  const box = lab.file(".vagrant.d/boxes/generic-VAGRANTSLASH-debian12/4.3.12/virtualbox");
  await mkdir(box, { recursive: true });
  await writeFile(join(box, "metadata.json"), JSON.stringify({ provider: "virtualbox" }));
  await writeFile(join(box, "box.ovf"), "");
  await writeFile(
    join(box, "Vagrantfile"),
    'Vagrant.configure("2") { |config| config.vm.base_mac = "080027123456"; config.vm.boot_timeout = 1 }\n',
  );
  let seen = 0;
  /** What was asked of VirtualBox since the last look, without the names that Vagrant makes up. */
  const calls = async () => {
    const text = await readFile(join(folder, "calls"), "utf8").catch(() => "");
    const all = text.split("\n").filter(Boolean);
    const news = all.slice(seen).map((line) => plain((JSON.parse(line) as string[]).join(" ")));
    seen = all.length;
    return news;
  };
  const plain = (line: string) =>
    line
      .replaceAll(lab.path, "")
      .replace(/00000000-0000-4000-8000-0000000000(\d\d)/, "VM$1")
      .replace(/\b(box|temp_clone)_\d+_\d+/g, "$1_N")
      .replace(/,127\.0\.0\.1,\d+,,22$/, ",127.0.0.1,PORT,,22");
  /** The forwarded ports of all machines, as VirtualBox listens for them. */
  const forwardings = async () => {
    const text = await readFile(join(folder, "state.json"), "utf8");
    const state = JSON.parse(text) as { machines: { forwardings: string[] }[] };
    return state.machines.flatMap((one) => one.forwardings);
  };
  const machine = (action: string, one: object) =>
    lab.run(join(root, "vagrant/machine.sh"), [action], {
      K3S_LAB_ROOT: lab.path,
      LAB_STACK: "cluster",
      LAB_PROVIDER: "virtualbox",
      LAB_MACHINE: JSON.stringify(one),
      LAB_NETWORK: "192.168.60.0/24",
      LAB_GENERATION: "first",
    });
  return { ...lab, calls, forwardings, machine };
}

/** How a machine is prepared and started, whether it was just cloned or is started again. */
const start = (vm: string, { name, ip, cpus, memory }: typeof machines.boss) => [
  `modifyvm ${vm} --nic1 nat --nic2 hostonly --hostonlyadapter2 vboxnet0 --cableconnected2 on`,
  `modifyvm ${vm} --natpf1 ssh,tcp,127.0.0.1,PORT,,22`,
  `modifyvm ${vm} --rtcuseutc on`,
  `modifyvm ${vm} --natdnsproxy1 on`,
  `modifyvm ${vm} --cpus ${cpus}`,
  `modifyvm ${vm} --memory ${memory}`,
  ...Object.entries({
    ...{ id: "lab-1", stack: "cluster", machine: name, ip, generation: "first" },
    // The folder's name is left out.
    checkout: "",
  }).map(([key, value]) => `setextradata ${vm} k3s-lab.${key} ${value}`),
  `startvm ${vm} --type headless`,
];

const withoutNics = (vm: string) =>
  `modifyvm ${vm} ${[2, 3, 4, 5, 6, 7, 8].map((slot) => `--nic${slot} none`).join(" ")}`;

const clone = (vm: string, name: string) => [
  "clonevm VM01 --register --name temp_clone_N --snapshot base --options link",
  `modifyvm ${vm} --macaddress1 080027123456`,
  `modifyvm ${vm} --name k3s-lab-cluster-${name}`,
  withoutNics(vm),
];

suite("VirtualBox, up to its own process", { skip }, () => {
  let lab: Awaited<ReturnType<typeof virtualBox>>;
  before(async () => {
    const list = Object.values(machines).map((one) => `    - ${JSON.stringify(one)}\n`);
    lab = await virtualBox(
      `config:\n  k3s-lab:network: 192.168.60.0/24\n  k3s-lab:machines:\n${list.join("")}`,
    );
  });

  /** What a program of the project sees of the machine, in the checkout that the test made. */
  async function observe(machine: object): Promise<MachineObservation> {
    for (const folder of ["scripts", "stacks", "node_modules"])
      if (!existsSync(lab.file(folder))) await symlink(join(root, folder), lab.file(folder));
    const look = `import { observeMachines } from ${JSON.stringify(lab.file("stacks/observe/machines.ts"))};
      const seen = await observeMachines("cluster", "virtualbox", [${JSON.stringify(machine)}], "now");
      console.log(JSON.stringify([...seen.values()][0]));`;
    const { stdout, all } = await lab.run(process.execPath, [
      ...["--preserve-symlinks", "--preserve-symlinks-main", "--input-type=module", "--eval", look],
    ]);
    assert.match(stdout, /^\{/, all);
    return JSON.parse(stdout) as MachineObservation;
  }

  test("the first machine: imported box, linked clone, host-only network, SSH on loopback, headless", async () => {
    const { all } = await lab.machine("up", machines.boss);
    assert.match(all ?? "", /Timed out while waiting for the machine to boot/);
    const [imported = "", ...rest] = await lab.calls();
    assert.match(
      imported,
      /^import \/\.vagrant\.d\/boxes\/generic-VAGRANTSLASH-debian12\/4\.3\.12\/.*box\.ovf /,
    );
    assert.deepEqual(rest, [
      "snapshot VM01 take base",
      ...clone("VM02", "boss"),
      "hostonlyif create",
      "hostonlyif ipconfig vboxnet0 --ip 192.168.60.1 --netmask 255.255.255.0",
      ...start("VM02", machines.boss),
    ]);
  });

  test("the next one: a clone of the same snapshot in the same network", async () => {
    await lab.machine("up", machines.hand);
    assert.deepEqual(await lab.calls(), [...clone("VM03", "hand"), ...start("VM03", machines.hand)]);
    assert.equal(new Set(await lab.forwardings()).size, 2);
  });

  test("reports a machine that is running, paused, stopped or missing", async () => {
    assert.deepEqual(await observe(machines.boss), { state: "running", generation: "first" });
    const id = await readFile(lab.file(".lab/cluster/vagrant/machines/boss/virtualbox/id"), "utf8");
    await lab.run("VBoxManage", ["controlvm", id, "pause"]);
    assert.deepEqual(await observe(machines.boss), {
      state: "paused",
      generation: "first",
      found: "paused at now",
    });
    await lab.machine("update", machines.boss);
    assert.deepEqual(await lab.calls(), ["controlvm VM02 pause", "controlvm VM02 resume"]);
    await lab.run("VBoxManage", ["controlvm", id, "poweroff"]);
    assert.equal((await observe(machines.boss)).found, "stopped at now");
    await lab.machine("update", machines.boss);
    assert.equal((await observe(machines.boss)).state, "running");
    assert.deepEqual(await observe({ name: "nobody", ip: "192.168.60.99" }), {
      state: "absent",
      generation: "now",
      found: "absent at now",
    });
    await lab.calls();
  });

  test("Vagrant's note of the machine is lost: it is still the same machine", async () => {
    const note = lab.file(".lab/cluster/vagrant/machines/boss/virtualbox/id");
    const id = await readFile(note, "utf8");
    await rm(note);
    assert.equal((await observe(machines.boss)).state, "running");
    await lab.machine("update", machines.boss);
    assert.equal(await readFile(note, "utf8"), id);
    assert.deepEqual(await lab.calls(), []);
  });

  test("another size: the machine is stopped, changed and started, not recreated", async () => {
    const bigger = { ...machines.boss, cpus: 2, memory: 1100 };
    await lab.machine("update", bigger);
    assert.deepEqual(await lab.calls(), [
      "controlvm VM02 poweroff",
      "modifyvm VM02 --natpf1 delete ssh",
      withoutNics("VM02"),
      ...start("VM02", bigger),
    ]);
  });

  test("the host-only interface is removed with the last machine, and nobody else's is", async () => {
    await lab.run("VBoxManage", ["hostonlyif", "create"]);
    await lab.calls();
    assert.equal((await lab.machine("destroy", machines.hand)).exitCode, 0);
    assert.deepEqual(await lab.calls(), ["controlvm VM03 poweroff", "unregistervm VM03 --delete"]);
    assert.equal((await lab.machine("destroy", machines.boss)).exitCode, 0);
    assert.deepEqual(await lab.calls(), [
      "controlvm VM02 poweroff",
      "unregistervm VM02 --delete",
      "hostonlyif remove vboxnet0",
    ]);
    assert.equal((await observe(machines.boss)).state, "absent");
  });
});

test("Vagrant itself refuses the lab's network where VirtualBox does: nothing is started", {
  skip: skip || (existsSync(networksConf) && `${networksConf} is there`),
}, async () => {
  const lab = await virtualBox();
  const { all = "", exitCode } = await lab.vagrant(["up", "server", "--provider", "virtualbox"]);
  assert.notEqual(exitCode, 0);
  assert.match(all, /Address: 192\.168\.42\.110\n\s*Ranges: 192\.168\.56\.0\/21/);
  assert.deepEqual(
    (await lab.calls()).filter((line) => /^(startvm|hostonlyif)/.test(line)),
    [],
  );
});

test("on another architecture the box is not tried", { skip }, async () => {
  const lab = await virtualBox();
  await writeFile(lab.file("arm.rb"), 'RbConfig::CONFIG["host_cpu"] = "aarch64"\n');
  const { all = "", exitCode } = await lab.vagrant(["up", "server", "--provider", "virtualbox"], {
    RUBYOPT: `-r${lab.file("arm.rb")}`,
  });
  // An error of Ruby's quotes the Vagrantfile's line, with the name of the box not yet in its place.
  assert.match(all, /^generic\/debian12 is a box for x86-64, which VirtualBox cannot run here/m);
  assert.doesNotMatch(all, /NameError/);
  assert.equal(exitCode, 1, all);
  assert.deepEqual(await lab.calls(), []);
});
