import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { chmod, mkdir, mkdtemp, readFile, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, type TestContext, test } from "node:test";
import { processId } from "../../stacks/lib/processes.ts";
import { boxFolder } from "./box.ts";
import type { Run } from "./commands.ts";
import { type Answer, fakeRun } from "./fake-run.ts";
import { ensureLibvirt, hiddenFolder, stopLibvirt } from "./libvirt.ts";
import { isPartial, networkXml } from "./libvirt-resources.ts";

/** Where the labs of a test find each other. */
const base = await mkdtemp(join(tmpdir(), "k3s-lab-libvirt-"));
after(() => rm(base, { recursive: true, force: true }));
const shared = () => mkdtemp(join(base, "shared-"));

const box = { name: "k3s-lab/machine-1", version: "1.0.0" };
const spec = { network: "192.168.42.0/24", internet: true, box };
/** What `virsh net-uuid` says of a network that the lab of a user made. */
const networkOf = (user: number): Answer => [
  / net-uuid k3s-lab$/,
  { stdout: `6b33732d-6c61-4200-8000-${user.toString(16).padStart(12, "0")}\n` },
];
const mine = networkOf(process.getuid?.() ?? 0);
const another = networkOf(4321);

test("the lab's network has this computer's address, no DHCP and no route elsewhere", () => {
  const xml = networkXml("k3s-lab", { network: "10.9.8.0/22", internet: true });
  assert.match(xml, /<ip address="10\.9\.8\.1" netmask="255\.255\.252\.0"><\/ip>/);
  assert.doesNotMatch(xml, /forward|dhcp/);
});

for (const internet of [true, false])
  test(`Vagrant's network has DHCP and ${internet ? "a route to the internet" : "no route to the internet"}`, () => {
    const xml = networkXml("k3s-lab-management", { network: "10.9.8.0/24", internet });
    assert.equal(xml.includes('<forward mode="nat"/>'), internet);
    assert.match(xml, /<range start="192\.168\.119\.2" end="192\.168\.119\.254"\/>/);
  });

/** The disk of a box as the pool has it, and what \`virsh vol-list\` says of these. */
const boxDisk = "k3s-lab-VAGRANTSLASH-machine-1_vagrant_box_image_1.0.0_box.img";
const volumes = (...names: string[]) => `${names.map((name) => ` ${name}   /pool/${name}\n`).join("")}\n`;

for (const [what, xml] of [
  [
    "a clone of a machine, or a renamed one,",
    "<disk type='file' device='disk'><source file='/var/lib/libvirt/images/k3s-lab/k3s-lab-cluster-server-clone.img'/></disk>",
  ],
  [
    "a virtual machine in the lab's network",
    "<interface type='network'><source network='k3s-lab'/></interface>",
  ],
] as const)
  test(`${what} belongs to its owner: networks, pool and disks stay`, async () => {
    const { run, commands } = fakeRun(
      [/^virsh --version$/, {}],
      [/ uri$/, {}],
      mine,
      [/ list --all --name$/, { stdout: "theirs\nbackup\n" }],
      [
        / dumpxml theirs$/,
        { stdout: "<source file='/var/lib/libvirt/images/theirs.img'/><source network='default'/>" },
      ],
      [/ dumpxml backup$/, { stdout: xml }],
      [/ vol-list /, { stdout: volumes(boxDisk, "k3s-lab-cluster-server-clone.img") }],
      [/ (vol-delete|pool-destroy|net-destroy) /, {}],
    );
    assert.deepEqual(await stopLibvirt(() => {}, run, await shared()), { state: "kept", by: ["backup"] });
    assert.deepEqual(
      commands.filter((line) => /destroy|delete/.test(line)),
      [],
    );
  });

test("networks and pool stay while another checkout's machines use them", async () => {
  const { run, commands } = fakeRun([/^virsh --version$/, {}], [/ uri$/, {}], mine, [
    / list --all --name$/,
    { stdout: "someone's\nk3s-lab-cluster-server\n" },
  ]);
  assert.deepEqual(await stopLibvirt(() => {}, run, await shared()), {
    state: "kept",
    by: ["k3s-lab-cluster-server"],
  });
  assert.equal(commands.length, 4);
});

test("networks and pool stay while another lab is about to create its machines", async () => {
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

test("networks, pool and disks of another user's lab stay, even before it has a machine", async () => {
  const { run, commands } = fakeRun([/^virsh --version$/, {}], [/ uri$/, {}], another, [/ list /, {}]);
  assert.deepEqual(await stopLibvirt(() => {}, run, await shared()), {
    state: "kept",
    by: ["the lab of another user (id 4321)"],
  });
  assert.equal(commands.filter((line) => /destroy|delete/.test(line)).length, 0);
});

test("without a lab network nothing is removed: somebody may be creating the first one", async () => {
  const { run, commands } = fakeRun(
    [/^virsh --version$/, {}],
    [/ uri$/, {}],
    [/ net-uuid /, { exitCode: 1, stderr: "error: Network not found" }],
    [/ list /, {}],
  );
  assert.deepEqual(await stopLibvirt(() => {}, run, await shared()), { state: "none" });
  assert.equal(commands.filter((line) => /destroy|delete/.test(line)).length, 0);
});

test("the lab's network, which says who owns the rest, is removed last", async () => {
  const { run, commands } = fakeRun(
    [/^virsh --version$/, {}],
    [
      / vol-list /,
      { stdout: volumes(boxDisk, `${boxDisk}.part`, "k3s-lab-cluster-server.img", "mine.qcow2") },
    ],
    mine,
    [/^virsh /, {}],
  );
  assert.deepEqual(await stopLibvirt(() => {}, run, await shared()), { state: "none" });
  assert.deepEqual(
    commands.filter((line) => /destroy|delete/.test(line)).map((line) => line.replace(/^.*--quiet /, "")),
    [
      `vol-delete --pool k3s-lab ${boxDisk}`,
      `vol-delete --pool k3s-lab ${boxDisk}.part`,
      "vol-delete --pool k3s-lab k3s-lab-cluster-server.img",
      "pool-destroy k3s-lab",
      "net-destroy k3s-lab-management",
      "net-destroy k3s-lab",
    ],
  );
});

test("C3: a list of disks that fails is not an empty one: the pool stays, so that the disks are not abandoned silently", async () => {
  const stop = async (stderr: string) => {
    const { run, commands } = fakeRun(
      [/^virsh --version$/, {}],
      [/ vol-list /, { exitCode: 1, stderr }],
      mine,
      [/^virsh /, {}],
    );
    const failure = await stopLibvirt(() => {}, run, await shared()).catch((error: Error) => error.message);
    return [failure, commands.filter((line) => /destroy/.test(line)).length];
  };
  const [failure, destroyed] = await stop("error: Timed out during operation");
  assert.match(String(failure), /disks in its pool k3s-lab.*Timed out/);
  assert.equal(destroyed, 0);
  const none =
    "error: failed to get pool 'k3s-lab'\nerror: Storage pool not found: no storage pool with matching name";
  assert.deepEqual(await stop(none), [{ state: "none" }, 3]);
});

/** A daemon of the lab's own that does not answer, and runs with this process id or was killed. */
async function silent(pid?: number) {
  const folder = await shared();
  const daemon = (await processId(pid ?? 0)) ?? { pid: 2 ** 22 + 1, startTime: "1" };
  const record = { daemon, rules: {}, forwarding: "", runFolder: true };
  await writeFile(join(folder, "libvirt.json"), JSON.stringify(record));
  let started = 0;
  const { run: answer, commands } = fakeRun([/^virsh --version$/, {}], mine, [
    / list --all --name$/,
    { stdout: "k3s-lab-cluster-server\n" },
  ]);
  const run: Run = async (command, options) =>
    command.at(-1) === "uri"
      ? { exitCode: started ? 0 : 1, stdout: "", stderr: "error: Connection refused" }
      : await answer(command, options);
  const start = async () => {
    started++;
  };
  const stopped = await stopLibvirt(() => {}, run, folder, start).catch((error: Error) => error.message);
  return { stopped, started, changed: commands.filter((line) => /destroy|delete|save/.test(line)).length };
}

test("the lab's libvirt was killed: the machines of all checkouts are queried before it is stopped", async () => {
  assert.deepEqual(await silent(), {
    ...{ stopped: { state: "kept", by: ["k3s-lab-cluster-server"] }, started: 1, changed: 0 },
  });
});

test("the lab's libvirt hangs: it is not stopped, because its machines may be running", async () => {
  const daemon = spawn("sleep", ["60"]);
  const { stopped, ...rest } = await silent(daemon.pid).finally(() => daemon.kill());
  assert.match(
    String(stopped),
    new RegExp(`libvirt daemon \\(process ${daemon.pid}\\) does not answer: .*Connection refused`),
  );
  assert.deepEqual(rest, { started: 0, changed: 0 });
});

test("a disk that libvirt does not remove is reported, and the pool that contains it stays", async () => {
  const stop = async (stderr: string) => {
    const { run, commands } = fakeRun(
      [/^virsh --version$/, {}],
      [/ vol-list /, { stdout: " k3s-lab-a.img   /pool/k3s-lab-a.img\n" }],
      [/ vol-delete /, { exitCode: 1, stderr }],
      mine,
      [/^virsh /, {}],
    );
    const failure = await stopLibvirt(() => {}, run, await shared()).catch((error: Error) => error.message);
    return [failure, commands.filter((line) => /destroy/.test(line)).length];
  };
  const [failure, destroyed] = await stop("error: volume 'k3s-lab-a.img' is still in use.");
  assert.match(String(failure), /did not remove the disk k3s-lab-a\.img .*still in use/);
  assert.equal(destroyed, 0);
  assert.deepEqual(await stop("error: Storage volume not found: no storage vol"), [{ state: "none" }, 3]);
});

test("a libvirt that answers in place of the lab's killed one belongs to others: nothing in it is stopped", async () => {
  const folder = await shared();
  const forwarding = await readFile("/proc/sys/net/ipv4/ip_forward", "utf8").catch(() => "0\n");
  const record = { daemon: { pid: 2 ** 22 + 1, startTime: "1" }, rules: {}, forwarding, runFolder: true };
  await writeFile(join(folder, "libvirt.json"), JSON.stringify(record));
  const { run, commands } = fakeRun(
    [/^virsh --version$/, {}],
    [/ uri$/, {}],
    [/ net-uuid /, { exitCode: 1, stderr: "error: Network not found" }],
    [/ list |tables-save|^sudo /, {}],
  );
  assert.deepEqual(await stopLibvirt(() => {}, run, folder), { state: "none" });
  assert.deepEqual(
    commands.filter((line) => !line.startsWith("virsh ")),
    [],
    "its firewall rules are nobody's to look at",
  );
  await assert.rejects(readFile(join(folder, "libvirt.json")), "the note says nothing any more");
});

test("two users of one libvirt: the second is refused with one sentence before it creates anything", async () => {
  const { run, commands } = fakeRun([/ uri$/, {}], another);
  await assert.rejects(
    ensureLibvirt(spec, () => {}, run, await shared()),
    {
      exitCode: 2,
      message: /Another user of this computer \(id 4321\) has a lab in libvirt.*scripts\/lab down/,
    },
  );
  assert.equal(commands.filter((line) => /create|upload/.test(line)).length, 0);
});

test("two users at the same moment: the one whose network libvirt created continues, the other is refused", async () => {
  let asked = 0;
  const { run: answer, commands } = fakeRun(
    [/ uri$/, {}],
    [/^ip /, {}],
    [/ net-create /, { exitCode: 1, stderr: "error: network 'k3s-lab' already exists" }],
    [/ net-info k3s-lab$/, {}],
    another,
  );
  const run: Run = async (command, options) =>
    command.includes("net-uuid") && asked++ === 0
      ? { exitCode: 1, stdout: "", stderr: "error: Network not found" }
      : await answer(command, options);
  await assert.rejects(
    ensureLibvirt(spec, () => {}, run, await shared()),
    { exitCode: 2, message: /Another user/ },
  );
  assert.equal(commands.filter((line) => /pool-|vol-/.test(line)).length, 0);
});

test("C3: if the query for the lab's network fails, its owner is unknown", async () => {
  const { run, commands } = fakeRun(
    [/ uri$/, {}],
    [/ net-uuid /, { exitCode: 1, stderr: "error: Timed out" }],
    [/^virsh|^ip /, {}],
  );
  await assert.rejects(
    ensureLibvirt(spec, () => {}, run, await shared()),
    /who owns the network k3s-lab/,
  );
  await assert.rejects(
    stopLibvirt(() => {}, run, await shared()),
    /who owns the network k3s-lab/,
  );
  assert.equal(commands.filter((line) => /create|destroy|delete/.test(line)).length, 0);
});

/** A libvirt with networks and a pool, and a box to copy into it. */
async function withBox(t: TestContext, answers: readonly Answer[]) {
  const { VAGRANT_HOME } = process.env;
  process.env.VAGRANT_HOME = await shared();
  t.after(() => {
    process.env.VAGRANT_HOME = VAGRANT_HOME;
    if (VAGRANT_HOME === undefined) delete process.env.VAGRANT_HOME;
  });
  await mkdir(boxFolder(box), { recursive: true });
  await writeFile(join(boxFolder(box), "metadata.json"), '{"virtual_size": 8}');
  await writeFile(join(boxFolder(box), "box.img"), "0123456789");
  return fakeRun(
    ...answers,
    [/ uri$/, {}],
    mine,
    [/ (net|pool)-info /, {}],
    [/ vol-dumpxml /, volume({ bytes: 10 })],
    [/ list --all /, {}],
    [/ vol-/, {}],
  );
}

/** Copies the box's disk. @returns what `virsh` was told to do with volumes. */
async function copyDisk(
  t: TestContext,
  answers: readonly Answer[],
  patience: (line: string, timeout: number) => void = () => {},
): Promise<string[]> {
  const { run, commands } = await withBox(t, answers);
  const watched: Run = (command, options) => {
    patience(command.join(" "), options?.timeout ?? Number.POSITIVE_INFINITY);
    return run(command, options);
  };
  const failure = await ensureLibvirt(spec, () => {}, watched, await shared()).catch((error: Error) => error);
  const done = commands.flatMap((line) => / (vol-(?!list|dumpxml).*)$/.exec(line)?.[1] ?? []);
  return [
    ...done.map((line) => line.replaceAll(disk, "DISK").replace(/(?<= DISK) .*box\.img$/, "")),
    ...(failure ? [failure.message] : []),
  ];
}

const disk = "k3s-lab-VAGRANTSLASH-machine-1_vagrant_box_image_1.0.0_box.img";
const listed = (...names: string[]): Answer => [
  / vol-list /,
  { stdout: names.map((name) => ` ${name}   /pool/${name}\n`).join("") },
];
/** What libvirt says of a disk of so many bytes, which may begin as another. */
const volume = ({ bytes, base }: { readonly bytes: number; readonly base?: string }) => ({
  stdout: `<volume type='file'>
  <capacity unit='bytes'>8589934592</capacity>
  <physical unit='bytes'>${bytes}</physical>
  <target>
    <path>/pool/${disk}</path>
  </target>
${base === undefined ? "" : `  <backingStore>\n    <path>/pool/${base}</path>\n  </backingStore>`}
</volume>`,
});
const marked = [
  "vol-create-as k3s-lab DISK.part 1",
  "vol-create-as k3s-lab DISK 8G --format qcow2 --allocation 0",
];
const upload = "vol-upload --pool k3s-lab DISK";

test("the box's disk is marked as incomplete until it is fully copied", async (t) => {
  assert.deepEqual(await copyDisk(t, [listed("other.img")]), [
    ...marked,
    upload,
    "vol-delete --pool k3s-lab DISK.part",
  ]);
  assert.deepEqual(await copyDisk(t, [listed(disk)]), []);
});

test("a box disk whose copying was killed is copied again in place", async (t) => {
  assert.deepEqual(await copyDisk(t, [listed(disk, `${disk}.part`)]), [
    upload,
    "vol-delete --pool k3s-lab DISK.part",
  ]);
});

test("a disk left by a killed plain Vagrant is copied again", async (t) => {
  const half: Answer = [new RegExp(` vol-dumpxml .*${disk}$`), volume({ bytes: 4 })];
  const names = listed(disk, "machine.img");
  assert.deepEqual(await copyDisk(t, [names, half]), [
    marked[0],
    "vol-delete --pool k3s-lab DISK",
    marked[1],
    upload,
    "vol-delete --pool k3s-lab DISK.part",
  ]);
  const used = await copyDisk(t, [names, half, [/ vol-dumpxml /, volume({ bytes: 9, base: disk })]]);
  assert.deepEqual(used, [], "a machine begins as it, so it may be of another box of that name");
  const clone: Answer = [/ list --all /, { stdout: "k3s-lab-cluster-server\nclone\n" }];
  const inNetwork: Answer = [/ dumpxml clone$/, { stdout: "<source network='k3s-lab'/>" }];
  const cloned = await copyDisk(t, [names, half, clone, inNetwork]);
  assert.deepEqual(cloned, [], "a clone may begin as it from anywhere");
  const unknown = await copyDisk(t, [names, [/ vol-dumpxml /, { exitCode: 1, stderr: "error: timed out" }]]);
  assert.match(unknown.join(), /^libvirt does not describe the disk .*timed out/);
});

test("plain Vagrant starts no machine from an incomplete box disk", async (t) => {
  const half: Answer = [new RegExp(` vol-dumpxml .*${disk}$`), volume({ bytes: 4 })];
  const partial = async (...answers: Answer[]) => isPartial(box, (await withBox(t, answers)).run);
  assert.equal(await partial(listed(disk), half), true);
  assert.equal(
    await partial(listed(disk, `${disk}.part`)),
    true,
    "it is being copied, or that was interrupted",
  );
  assert.equal(await partial(listed(disk)), false);
  assert.equal(await partial(listed(`${disk}.part`)), false, "Vagrant copies it");
  const used: Answer = [/ vol-dumpxml /, volume({ bytes: 9, base: disk })];
  assert.equal(await partial(listed(disk, "machine.img"), half, used), false, "machines begin as it");
  assert.equal(
    await partial([/ vol-list /, { exitCode: 1, stderr: "error: Storage pool not found" }]),
    false,
  );
  assert.equal(await partial([/ vol-list /, { exitCode: undefined, ended: "missing" }]), false);
  await assert.rejects(partial([/ vol-list /, { exitCode: 1, stderr: "error: timed out" }]), /does not list/);
});

test("a slow disk gets enough time to copy gigabytes", async (t) => {
  let given = 0;
  await copyDisk(t, [listed()], (line, timeout) => {
    if (line.includes(" vol-upload ")) given = timeout;
  });
  assert.ok(given >= 1_800_000, `${given} ms`);
});

test("C3: a list of disks that fails proves nothing, and an existing disk stays", async (t) => {
  const timeout = { exitCode: undefined, ended: "timeout" } as const;
  const [unknown = "", ...nothing] = await copyDisk(t, [[/ vol-list /, timeout]]);
  assert.match(unknown, /does not list the disks/);
  assert.deepEqual(nothing, []);
  const there = { exitCode: 1, stderr: "error: storage volume already exists" };
  const made = await copyDisk(t, [listed(), [new RegExp(` vol-create-as k3s-lab ${disk} `), there]]);
  assert.deepEqual(made.slice(0, -1), marked);
  assert.match(made.at(-1) ?? "", /could not import the disk/);
});

for (const stays of [false, true])
  test(`a failed copy of the box's disk is removed${stays ? ", or stays marked if it cannot be" : ""}`, async (t) => {
    const made = await copyDisk(t, [
      listed(),
      [/ vol-upload /, { exitCode: 1, stderr: "error: no space left" }],
      [new RegExp(` vol-delete .*${disk}$`), { exitCode: stays ? 1 : 0 }],
    ]);
    assert.deepEqual(made.slice(0, -1), [
      ...marked,
      upload,
      "vol-delete --pool k3s-lab DISK",
      ...(stays ? [] : ["vol-delete --pool k3s-lab DISK.part"]),
    ]);
    assert.match(made.at(-1) ?? "", /could not import the disk.*no space left/);
  });

test("the folder of locks and records is private to its owner, even if others could read it before", async () => {
  for (const mode of [undefined, 0o755]) {
    const folder = join(await shared(), "run");
    if (mode !== undefined) await mkdir(folder, { mode });
    const { run } = fakeRun([/^virsh --version$/, {}], [/ uri$/, { exitCode: 1, stderr: "no such file" }]);
    await stopLibvirt(() => {}, run, folder);
    assert.equal((await stat(folder)).mode & 0o777, 0o700);
  }
});

test("while one lab removes libvirt's networks, another has to wait", async () => {
  const folder = await shared();
  const order: string[] = [];
  const slow =
    (name: string): Run =>
    async (command) => {
      const line = command.join(" ");
      if (line.endsWith(" uri")) order.push(`${name} begins`);
      await new Promise((resolve) => setTimeout(resolve, 5));
      if (line.includes(" pool-destroy ")) order.push(`${name} ends`);
      return { exitCode: 0, stdout: "", stderr: "", ...(line.includes(" net-uuid ") ? mine[1] : {}) };
    };
  await Promise.all(["one", "two"].map((name) => stopLibvirt(() => {}, slow(name), folder)));
  const [first = ""] = order[0]?.split(" ") ?? [];
  assert.deepEqual(order.slice(0, 2), [`${first} begins`, `${first} ends`]);
  assert.equal(order.length, 4);
});

test("finds the folder that keeps QEMU from reading the box's kernel", async () => {
  const folder = await mkdtemp("/tmp/hidden-");
  await mkdir(join(folder, "home", "boxes"), { recursive: true });
  for (const one of [folder, join(folder, "home"), join(folder, "home", "boxes")]) await chmod(one, 0o755);
  const kernel = join(folder, "home", "boxes", "vmlinuz");
  assert.equal(await hiddenFolder(kernel), undefined);
  await chmod(join(folder, "home"), 0o700);
  assert.equal(await hiddenFolder(kernel), join(folder, "home"));
  await rm(folder, { recursive: true });
});

test("C3: a list of machines that fails is not an empty one: networks and pool stay", async () => {
  const { run, commands } = fakeRun([/^virsh --version$/, {}], [/ uri$/, {}], mine, [
    / list --all --name$/,
    { exitCode: 1, stderr: "error: Disconnected from qemu:///system\n" },
  ]);
  await assert.rejects(
    stopLibvirt(() => {}, run, await shared()),
    /did not list its machines: error: Disconnected .* stay/,
  );
  assert.deepEqual(
    commands.filter((line) => /destroy|delete/.test(line)),
    [],
  );
});

test("a route that libvirt mistakes for a use of the network is named, with the next step", async () => {
  const routes = [
    { type: "blackhole", dst: "192.168.42.0/24", metric: 7 },
    { dst: "10.0.0.0/8", dev: "eth0" },
  ];
  const inUse = "error: internal error: Network is already in use by interface *";
  const { run } = fakeRun(
    [/^ip -json -4 route show table all$/, { stdout: JSON.stringify(routes) }],
    [/ uri$/, {}],
    [/ net-uuid /, { exitCode: 1, stderr: "error: Network not found" }],
    [/ net-(info|create) /, { exitCode: 1, stderr: inUse }],
  );
  await assert.rejects(
    ensureLibvirt(spec, () => {}, run, await shared()),
    {
      message: `libvirt could not create the network k3s-lab: ${inUse}\nConflicting: the route "blackhole 192.168.42.0/24 metric 7". If you do not need it while the lab is up, remove it:\n  sudo ip route del blackhole 192.168.42.0/24 metric 7\nOtherwise set another k3s-lab:network.`,
    },
  );
});
