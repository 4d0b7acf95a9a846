import assert from "node:assert/strict";
import { chmod, cp, mkdir, mkdtemp, readFile, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, afterEach, before, beforeEach, test } from "node:test";
import { execa } from "execa";
import { LabError } from "../../stacks/lib/errors.ts";
import { labId } from "../../stacks/lib/lab-id.ts";
import { labDir, root, stateFile } from "../../stacks/lib/paths.ts";
import type { MachineObservation } from "../../stacks/observe/machine-list.ts";
import { listMachines } from "../../stacks/observe/machine-list.ts";
import { observeMachines, recordedMachineState } from "../../stacks/observe/machines.ts";
import { writeState } from "./checkout.ts";
import { fault, refused } from "./table.ts";

// Machines as their providers tell of them: docker, virsh, VBoxManage, ssh and vagrant are played by scripts that answer in
// the words of the real ones.

let folder: string;
const path = process.env.PATH;
const stack = "cluster-faults";
const now = "2026-01-01T00:00:00.000Z";
let id: string;

before(async () => {
  id = await labId();
});
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "k3s-lab-machines-"));
  await mkdir(join(folder, "bin"));
  process.env.PATH = `${join(folder, "bin")}:${path}`;
});
afterEach(() => rm(folder, { recursive: true, force: true }));
after(() => {
  process.env.PATH = path;
});

/** Puts a program on PATH; what it is asked is written to the file `log`. */
async function program(name: string, script: string): Promise<void> {
  const file = join(folder, "bin", name);
  await writeFile(file, `#!/bin/sh\necho "${name} $*" >>'${folder}/log'\n${script}\n`);
  await chmod(file, 0o755);
}
const asked = async (): Promise<string> => await readFile(join(folder, "log"), "utf8").catch(() => "");

interface Container {
  readonly id?: string;
  readonly name?: string;
  readonly state?: string;
  readonly networks?: string;
  readonly marks?: readonly [
    id?: string,
    stack?: string,
    machine?: string,
    ip?: string,
    generation?: string,
    checkout?: string,
  ];
}
/** A line of `docker ps` in the format that is asked for. */
const container = ({
  id: own = "c0ffee",
  name = `k3s-lab-${stack}-agent`,
  state = "running",
  networks = "bridge,vagrant_network_192.168.42.0/24",
  marks = [id, stack, "agent", "192.168.42.111", "g1"],
}: Container = {}) => [own, name, state, networks, ...marks].join("\\t");
const dockerWith = (...containers: string[]) =>
  program(
    "docker",
    `case "$*" in ps*ancestor=*) echo c0b1ed ;; "ps "*) printf '${containers.map((line) => `${line}\\n`).join("")}' ;;
    "image ls "*) ${containers.some((line) => line.startsWith("c0b1ed")) ? "echo sha256:committed" : ":"} ;; esac`,
  );

const agent = { name: "agent", ip: "192.168.42.111" };
const look = async (provider: "docker" | "libvirt" | "virtualbox" | "hosts" = "docker", machine = agent) =>
  (await observeMachines(stack, provider, [machine], now)).get(machine.name) as MachineObservation;

/** The error that a look ends with. */
async function problem(run: () => Promise<unknown>): Promise<LabError | undefined> {
  try {
    await run();
    return undefined;
  } catch (error) {
    assert.ok(error instanceof LabError, String(error));
    return error;
  }
}

const unanswered: readonly (readonly [
  name: string,
  provider: "docker" | "libvirt" | "virtualbox",
  program: string,
  script: string,
  message: RegExp,
])[] = [
  [
    "dockerd is not running after a reboot",
    "docker",
    "docker",
    "echo 'Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?' >&2; exit 1",
    /Docker does not list .*Is the docker daemon running\?.*nothing is touched/,
  ],
  [
    "Docker's socket is not accessible to this user",
    "docker",
    "docker",
    "echo 'Got permission denied while trying to connect to the Docker daemon socket at unix:///var/run/docker.sock' >&2; exit 1",
    /Docker does not list .*permission denied/,
  ],
  ["Docker was uninstalled", "docker", "docker", "", /docker is not installed/],
  [
    "libvirtd is restarting",
    "libvirt",
    "virsh",
    "echo 'error: failed to connect to the hypervisor' >&2; echo \"error: Failed to connect socket to '/var/run/libvirt/libvirt-sock': Connection refused\" >&2; exit 1",
    /libvirt does not list .*Connection refused/,
  ],
  [
    "VirtualBox's driver is not loaded",
    "virtualbox",
    "VBoxManage",
    "echo 'VBoxManage: error: Failed to create the VirtualBox object!' >&2; exit 1",
    /VirtualBox does not list .*Failed to create the VirtualBox object/,
  ],
];
for (const [name, provider, file, script, message] of unanswered)
  fault(`C3: ${name}: its machines are not gone`, async () => {
    await program(file, script);
    if (script === "") {
      await rm(join(folder, "bin", file));
      process.env.PATH = join(folder, "bin");
    }
    const error = await problem(() => look(provider));
    assert.match(error?.message ?? "nothing was said", message);
    return { happened: `refused: ${error?.message.split(".")[0]}`, lost: "nothing" };
  });

fault("C3: dockerd hangs: its machines are not gone", async () => {
  await program("docker", "exec sleep 60");
  const error = await problem(() => listMachines("docker", 500));
  assert.match(error?.message ?? "", /no answer within 0\.5 s.*nothing is touched/);
  return { happened: "refused after the deadline", lost: "nothing" };
});

test("C3: a machine is absent if its provider's list does not contain it", async () => {
  await dockerWith();
  assert.deepEqual(await look(), { state: "absent", generation: now, found: `absent at ${now}` });
});

fault("C3: losing every note of a machine changes nothing", async () => {
  await dockerWith(container());
  assert.deepEqual(await look(), { state: "running", generation: "g1" });
  return { happened: "no change: the marks on the machine decide", lost: "nothing" };
});

for (const [state, seen] of [
  ["paused", "paused"],
  ["exited", "stopped"],
  ["created", "stopped"],
] as const)
  fault(`C3: a machine that is ${state} is repaired, not replaced`, async () => {
    await dockerWith(container({ state }));
    assert.deepEqual(await look(), { state: seen, generation: "g1", found: `${seen} at ${now}` });
    return { happened: "an update in place", lost: "nothing" };
  });

fault("C3: a machine cut off from its network is repaired, not replaced", async () => {
  await dockerWith(container({ networks: "bridge" }));
  assert.deepEqual(await look(), { state: "running", generation: "g1", found: `cut off at ${now}` });
  return { happened: "an update in place", lost: "nothing" };
});

fault("C3: a state that says neither yes nor no is reported, not guessed", async () => {
  await dockerWith(container({ state: "removing" }));
  const error = await problem(look);
  assert.match(error?.message ?? "", /Docker says "removing"/);
  return { happened: "refused", lost: "nothing" };
});

/** \`docker commit\` of a machine, and a container of a person's from that image: it inherits every label. */
const copy = container({ id: "c0b1ed", name: "backup", state: "exited" });

fault("a user's container from a commit of a machine has its labels, but is not the machine", async () => {
  for (const containers of [
    [copy, container()],
    [container(), copy],
  ]) {
    await dockerWith(...containers);
    assert.deepEqual(await look(), { state: "running", generation: "g1" });
  }
  await dockerWith(copy);
  assert.equal((await look()).state, "absent");
  await program(
    "docker",
    'case "$*" in ps*ancestor=*) echo c0b1ed ;; "ps "*) printf "c0ffee\\nc0b1ed\\n" ;; "image ls "*) echo sha256:committed ;; esac',
  );
  for (const action of ["destroy", "remove-leftovers"]) {
    const { exitCode, all } = await run(action);
    assert.equal(exitCode, 0, all);
  }
  const log = await asked();
  assert.match(log, /docker rm --force --volumes c0ffee/);
  return {
    happened: "only the machine is removed",
    lost: /rm .*c0b1ed/.test(log) ? "the container" : "nothing",
  };
});

/** virsh, as it answers in the C locale; in any other it says something else. */
const virsh = (domains: Readonly<Record<string, { state: string; description: string }>>) =>
  program(
    "virsh",
    [
      'if [ "$LC_ALL" != C ]; then laufend=laufend; fi',
      'while [ "$#" -gt 0 ]; do case "$1" in --connect) shift 2 ;; --quiet) shift ;; *) break ;; esac; done',
      'case "$1 $2" in',
      `"list --all") printf '${Object.keys(domains)
        .map((name) => `${name}\\n`)
        .join("")}\\n' ;;`,
      ...Object.entries(domains).flatMap(([name, { state, description }]) => [
        `"domstate ${name}") echo "\${laufend:-${state}}" ;;`,
        `"desc ${name}") echo '${description}' ;;`,
        `"domuuid ${name}") echo uuid-of-${name} ;;`,
      ]),
      "*) exit 0 ;;",
      "esac",
    ].join("\n"),
  );
const marked = (of = stack, machine = "agent") =>
  `k3s-lab.id=${id} k3s-lab.stack=${of} k3s-lab.machine=${machine} k3s-lab.ip=192.168.42.111 k3s-lab.generation=g1 k3s-lab.checkout=/lab`;

for (const [state, seen] of [
  ["running", "running"],
  ["paused", "paused"],
  ["shut off", "stopped"],
] as const)
  fault(`C3: virsh in German: a domain that is ${state} is recognized`, async () => {
    process.env.LC_ALL = "de_DE.UTF-8";
    try {
      await virsh({ [`k3s-lab-${stack}-agent`]: { state, description: marked() } });
      assert.deepEqual((await look("libvirt")).state, seen);
    } finally {
      delete process.env.LC_ALL;
    }
    return { happened: "virsh runs in the C locale", lost: "nothing" };
  });

fault("a clone of a libvirt machine has its description, but is not the machine", async () => {
  const name = `k3s-lab-${stack}-agent`;
  const clone = { [`${name}-clone`]: { state: "shut off", description: marked() } };
  const machine = { [name]: { state: "running", description: marked() } };
  await virsh({ ...clone, ...machine });
  assert.equal((await look("libvirt")).state, "running");
  const { exitCode, all } = await run("remove-leftovers", { LAB_PROVIDER: "libvirt" });
  assert.equal(exitCode, 0, all);
  await virsh(clone);
  assert.equal((await look("libvirt")).state, "absent");
  const log = await asked();
  assert.match(log, new RegExp(`undefine ${name}$`, "m"));
  return {
    happened: "only the machine is removed",
    lost: log.includes("undefine k3s-lab-cluster-faults-agent-clone") ? "the clone" : "nothing",
  };
});

fault(
  "a renamed libvirt machine keeps its disk, which the next machine of that name would start from",
  async () => {
    await program(
      "virsh",
      `case "$*" in *"list --all --name") echo mine ;; *"list --all --uuid") echo uuid-1 ;; *"domname uuid-1") echo mine ;; esac`,
    );
    const note = ["vagrant", "machines", "agent", "libvirt"];
    const here = join(labDir, stack, ...note);
    const there = join(folder, ".lab", stack, ...note);
    for (const one of [here, there]) {
      await mkdir(one, { recursive: true });
      await writeFile(join(one, "id"), "uuid-1");
    }
    try {
      const environment = { ...recorded().environment, LAB_PROVIDER: "libvirt" };
      for (const run of [() => look("libvirt"), () => recordedMachineState({ environment })])
        assert.match(
          (await problem(run))?.message ?? "taken for gone",
          /now calls the machine agent mine.*virsh .*domrename mine/,
        );
    } finally {
      await rm(join(labDir, stack, "vagrant"), { recursive: true });
    }
    await program("vagrant", "");
    for (const action of ["up", "destroy"]) {
      const { exitCode, all } = await run(action, { LAB_PROVIDER: "libvirt" });
      assert.equal(exitCode, 1, all);
      assert.match(all ?? "", /renamed/);
    }
    return {
      happened: "refused, with the command that restores the name",
      lost: /vol-delete/.test(await asked()) ? "its disk" : "nothing",
    };
  },
);

test("C3: VirtualBox machines are identified by their extra data", async () => {
  const name = `k3s-lab-${stack}-agent`;
  const marks = marked().split(" ").slice(0, 5);
  await program(
    "VBoxManage",
    `case "$1 $2" in
    "list vms") printf '"theirs" {u0}\\n"${name}" {u1}\\n"<inaccessible>" {u2}\\n' ;;
    "showvminfo u1") printf 'name="${name}"\\nVMState="paused"\\n' ;;
    "getextradata u1") printf '${marks.map((mark) => `Key: ${mark.replace("=", ", Value: ")}\\n`).join("")}' ;;
    *) exit 1 ;; esac`,
  );
  assert.deepEqual(await look("virtualbox"), {
    state: "paused",
    generation: "g1",
    found: `paused at ${now}`,
  });
});

test("C3: a machine whose files VirtualBox cannot read, as on an unmounted disk, is not absent", async () => {
  const name = `k3s-lab-${stack}-agent`;
  await program(
    "VBoxManage",
    `if [ "$1 $2" = "list vms" ]; then printf '"<inaccessible>" {u2}\\n'; else exit 1; fi`,
  );
  const folder = join(labDir, stack, "vagrant", "machines", "agent", "virtualbox");
  await mkdir(folder, { recursive: true });
  try {
    await writeFile(join(folder, "id"), "u3");
    assert.equal((await look("virtualbox")).state, "absent", name);
    await writeFile(join(folder, "id"), "u2");
    assert.match(
      (await problem(() => look("virtualbox")))?.message ?? "",
      /cannot read the files of the machine agent/,
    );
  } finally {
    await rm(join(labDir, stack, "vagrant"), { recursive: true });
  }
});

fault("a user's libvirt machine is backed by the disk of a deleted one: the disk stays", async () => {
  const disk = `/var/lib/libvirt/images/k3s-lab/k3s-lab-${stack}-agent.img`;
  await program(
    "virsh",
    `case "$*" in *"list --all --name") echo "my own" ;; *"list --all --uuid") echo uuid-2 ;; *"domname uuid-2") echo "my own" ;;
*"domblklist my own" | *"domblklist uuid-2") echo ' vda  ${disk}' ;; *domblklist*) exit 1 ;; esac`,
  );
  await program("vagrant", "");
  const note = join(folder, ".lab", stack, "vagrant", "machines", "agent", "libvirt");
  await mkdir(note, { recursive: true });
  await writeFile(join(note, "id"), "uuid-1");
  const { exitCode, all } = await run("up", { LAB_PROVIDER: "libvirt" });
  const lost = /vol-delete/.test(await asked()) ? "the disk" : "nothing";
  assert.equal(`${lost} ${exitCode}`, "nothing 1", all);
  assert.match(all ?? "", /the machine my own in libvirt has the disk/);
  return { happened: "exit 1", lost };
});

fault("a renamed VirtualBox machine; one that an interrupted Vagrant has not named yet", async () => {
  const answers = (data: string) =>
    program(
      "VBoxManage",
      `case "$1 $2" in "list vms") echo '"mine" {u4}' ;; "getextradata u4") echo '${data}' ;; esac`,
    );
  const here = join(labDir, stack, "vagrant", "machines", "agent", "virtualbox");
  await mkdir(here, { recursive: true });
  await writeFile(join(here, "id"), "u4");
  try {
    await answers("No value set!");
    assert.equal((await look("virtualbox")).state, "absent");
    await answers("Key: k3s-lab.machine, Value: agent");
    assert.match(
      (await problem(() => look("virtualbox")))?.message ?? "taken for gone",
      /now calls the machine agent mine.*VBoxManage modifyvm 'mine' --name k3s-lab-/,
    );
  } finally {
    await rm(join(labDir, stack, "vagrant"), { recursive: true });
  }
  return { happened: "refused, with the command that restores the name", lost: "nothing" };
});

refused(
  "a container of our name that no lab made",
  async () => {
    await dockerWith(container({ marks: [] }));
    return problem(look);
  },
  /docker already has a machine k3s-lab-cluster-faults-agent, which no lab created\. Nothing was touched/,
);
refused(
  "a domain of our name that another checkout made",
  async () => {
    const description = marked().replace(id, "another-lab");
    await virsh({ [`k3s-lab-${stack}-agent`]: { state: "running", description } });
    return problem(() => look("libvirt"));
  },
  /libvirt already has a machine .* created by the lab in \/lab/,
);
refused(
  "Two checkouts with one machine name",
  async () => {
    await dockerWith(container({ marks: ["theirs", stack, "agent", "10.0.0.2", "g7", "/there"] }));
    return problem(look);
  },
  /docker already has a machine k3s-lab-cluster-faults-agent, created by the lab in \/there\. Nothing was touched/,
);
refused(
  "Two checkouts with one address",
  async () => {
    const theirs = ["theirs", "cluster-ha", "one", agent.ip, "g7", "/there"] as const;
    await dockerWith(container({ name: "k3s-lab-cluster-ha-one", marks: theirs }));
    return problem(look);
  },
  /address 192\.168\.42\.111 in the stack file, which the machine k3s-lab-cluster-ha-one of the lab in \/there uses\. Run `scripts\/lab down` there/,
);
refused(
  "C4: a renamed machine that keeps its address",
  async () => {
    await dockerWith(container());
    return problem(() => look("docker", { name: "worker", ip: agent.ip }));
  },
  /worker has the address 192\.168\.42\.111 in the stack file, which the machine agent .* still uses\. A machine cannot be renamed/,
);

const recorded = (generation = "g1") => ({
  environment: {
    LAB_STACK: stack,
    LAB_PROVIDER: "docker",
    LAB_MACHINE: JSON.stringify(agent),
    LAB_GENERATION: generation,
  },
});
test("tells whether a recorded machine is running, before it is destroyed", async () => {
  await dockerWith(container({ state: "paused" }));
  assert.equal(await recordedMachineState(recorded()), "paused");
  assert.equal(await recordedMachineState(recorded("an older one")), "absent");
  await dockerWith();
  assert.equal(await recordedMachineState(recorded()), "absent");
});

/** What was noted when a machine was made: the way there, and its host key. */
async function withNoted(work: () => Promise<void>): Promise<void> {
  const noted = join(labDir, "ssh", `agent.${stack}`);
  await mkdir(noted, { recursive: true });
  await writeFile(join(noted, "config"), `Host agent.${stack}\n`);
  await writeFile(join(noted, "known_hosts"), `agent.${stack} ssh-ed25519 AAAA\n`);
  await work().finally(() => rm(noted, { recursive: true }));
}

fault("C3: a recorded host key that is unreadable is not treated as never recorded", async () => {
  await program("docker", "");
  // Root may read everything but a folder.
  const noted = join(labDir, "ssh", `agent.${stack}`);
  await mkdir(join(noted, "known_hosts"), { recursive: true });
  await assert.rejects(look(), /EISDIR/).finally(() => rm(noted, { recursive: true }));
  return { happened: "an error", lost: "nothing" };
});

for (const [provider, file] of [
  ["virtualbox", "VBoxManage"],
  ["docker", "docker"],
] as const)
  fault(
    `${file} of another user, or another daemon: a machine unknown to it that accepts our login`,
    async () => {
      await program(file, "");
      const environment = { ...recorded().environment, LAB_PROVIDER: provider };
      await withNoted(async () => {
        await program("ssh", "exit 0");
        for (const run of [() => look(provider), () => recordedMachineState({ environment })])
          assert.match(
            (await problem(run))?.message ?? "taken for gone",
            /agent.* answers over ssh with the host key .*Nothing was touched.*as the user/,
          );
        assert.match(await asked(), /StrictHostKeyChecking=yes/);
        // Another machine at its address shows another key.
        await program("ssh", "echo 'Host key verification failed.' >&2; exit 255");
        for (const run of [
          async () => (await look(provider)).state,
          () => recordedMachineState({ environment }),
        ])
          assert.equal(await run(), "absent");
      });
      return { happened: "refused, because it runs", lost: "nothing" };
    },
  );

test("a machine of the previous provider that accepts our login is replaced and is no conflict", async () => {
  await program("docker", "");
  await program("ssh", "exit 0");
  const environment = { LAB_STACK: stack, LAB_MACHINE: '{"name":"agent"}', LAB_GENERATION: "m1" };
  const made = (LAB_PROVIDER: string) => ({
    urn: `urn:pulumi:${stack}::k3s-lab::k3s-lab:cluster:LabMachine$command:local:Command::agent`,
    type: "command:local:Command",
    inputs: { environment: { ...environment, LAB_PROVIDER } },
  });
  const lookWith = async (provider: string) => {
    await writeState(root, stack, [made(provider)]);
    return await look("docker");
  };
  try {
    await withNoted(async () => {
      for (const provider of ["hosts", "libvirt"]) assert.equal((await lookWith(provider)).state, "absent");
      await assert.rejects(lookWith("docker"), /answers over ssh/);
    });
  } finally {
    await rm(stateFile(stack));
  }
});

fault(".lab/id was lost: its machines are neither gone nor another checkout's", async () => {
  await dockerWith(container({ marks: ["old-id", stack, "agent", "192.168.42.111", "g1", root] }));
  const said: string[] = [];
  for (const run of [look, () => recordedMachineState(recorded())])
    said.push((await problem(run))?.message ?? "taken for gone");
  for (const message of said)
    assert.match(message, /was created from this folder under the lab id old-id.*`echo old-id >'\S+id'`/);
  return { happened: "refused, with the command that restores the id", lost: "nothing" };
});

// Hosts.

/** `ssh` that runs what it is given in a shell here, as a login shell that prints a greeting first would. */
const ssh = (...answer: string[]) =>
  program("ssh", `echo 'Welcome to this host'; echo 'You have mail.' >&2\n${answer.join("\n")}`);
const host = { name: "pi", ip: "10.0.0.5", ssh: { user: "me" } };
const observeHost = async (one: typeof host & { ssh: object } = host) =>
  (await observeMachines(stack, "hosts", [one], now)).get(one.name) as MachineObservation;

fault("C5: a host key added to the file is another way to the same host", async () => {
  await ssh("echo 'k3s-lab machine=m1 node=pi'");
  const before = await observeHost();
  const hostKey = "ssh-ed25519 AAAA";
  const pinned = await observeHost({ ...host, ssh: { user: "me", hostKey } as (typeof host)["ssh"] });
  assert.deepEqual(before, { state: "running", generation: "m1" });
  assert.deepEqual(pinned, before);
  return { happened: "no replacement: /etc/machine-id identifies the host", lost: "nothing" };
});

fault("C5: known_hosts removed, as the lab advises: the host stays the same", async () => {
  await ssh("echo 'k3s-lab machine=m1 node='");
  assert.deepEqual(await observeHost(), { state: "running", generation: "m1" });
  return { happened: "no change", lost: "nothing" };
});

refused(
  "C4: a renamed host",
  async () => {
    await ssh("echo 'k3s-lab machine=m1 node=old'");
    return problem(observeHost);
  },
  /the host pi is already the node old of this cluster, and K3s cannot rename a node: name it old again, or remove it/,
);
refused(
  "one host under two names",
  async () => {
    await ssh("echo 'k3s-lab machine=m1 node='");
    return problem(() => observeMachines(stack, "hosts", [host, { ...host, name: "pi2" }], now));
  },
  /the hosts pi and pi2 have the same \/etc\/machine-id/,
);
refused(
  "a host that shows another key",
  async () => {
    await ssh("echo 'Host key verification failed.' >&2; exit 255");
    return problem(observeHost);
  },
  /the host pi \(me@10\.0\.0\.5 port 22\): its host key is not the expected one.* remove \S+known_hosts, or set ssh\.hostKey/,
);
refused(
  "a host that was never reached",
  async () => {
    await ssh("echo 'ssh: connect to host 10.0.0.5 port 22: No route to host' >&2; exit 255");
    return problem(observeHost);
  },
  /the host pi .* it cannot be reached: ssh: connect to host 10\.0\.0\.5 port 22: No route to host/,
);

fault("Medium: a silent host does not block the others", async () => {
  const environment = { LAB_MACHINE: "{}", LAB_GENERATION: "m1" };
  const urn = `urn:pulumi:${stack}::k3s-lab::k3s-lab:cluster:LabMachine$command:local:Command::pi`;
  await writeState(root, stack, [{ urn, type: "command:local:Command", inputs: { environment } }]);
  try {
    await ssh(
      `case "$*" in *" pi.${stack} "*) echo 'ssh: connect to host 10.0.0.5 port 22: Connection timed out' >&2; exit 255 ;; esac`,
      "echo 'k3s-lab machine=m2 node='",
    );
    const seen = await observeMachines(stack, "hosts", [host, { ...host, name: "pi2" }], now);
    assert.equal(seen.get("pi")?.state, "unreachable");
    assert.equal(seen.get("pi")?.generation, "m1");
    assert.match(seen.get("pi")?.reason ?? "", /it cannot be reached: .*Connection timed out/);
    assert.deepEqual(seen.get("pi2"), { state: "running", generation: "m2" });
  } finally {
    await rm(stateFile(stack));
  }
  return { happened: "left as recorded, with a warning", lost: "nothing" };
});

// machine.sh

const machineSh = process.env.MACHINE_SH ?? join(root, "vagrant/machine.sh");
async function run(action: string, more: Readonly<Record<string, string>> = {}, input = "Host x\n") {
  await mkdir(join(folder, ".lab"), { recursive: true });
  await writeFile(join(folder, ".lab/id"), id);
  await cp(join(root, "vagrant/provision"), join(folder, "vagrant/provision"), { recursive: true });
  return execa(machineSh, [action], {
    reject: false,
    all: true,
    input,
    extendEnv: false,
    env: {
      PATH: process.env.PATH ?? "",
      HOME: folder,
      K3S_LAB_ROOT: folder,
      LAB_STACK: stack,
      LAB_PROVIDER: "docker",
      LAB_MACHINE: JSON.stringify({ ...agent, role: "agent", cpus: 2, memory: 1024 }),
      LAB_NETWORK: "192.168.42.0/24",
      LAB_GENERATION: "g1",
      ...more,
    },
  });
}

fault("C2: `lab down` of a stack leaves domains of a stack whose name starts the same", async () => {
  await virsh({
    [`k3s-lab-${stack}-agent`]: { state: "running", description: marked() },
    [`k3s-lab-${stack}-ha-agent`]: { state: "running", description: marked(`${stack}-ha`) },
    "k3s-lab-other-agent": { state: "running", description: "theirs" },
  });
  const { exitCode, all } = await run("remove-leftovers", { LAB_PROVIDER: "libvirt" });
  assert.equal(exitCode, 0, all);
  const removed = [...(await asked()).matchAll(/undefine (\S+)/g)].map(([, name]) => name);
  return {
    happened: `removed: ${removed.join(", ")}`,
    lost: removed.filter((name) => name !== `k3s-lab-${stack}-agent`).join(", ") || "nothing",
  };
});

fault("C2: creating a machine leaves another lab's domain of its name", async () => {
  const description = marked().replace(id, "another-lab").replace("=g1", "=g0");
  await virsh({ [`k3s-lab-${stack}-agent`]: { state: "running", description } });
  const { exitCode, all } = await run("up", { LAB_PROVIDER: "libvirt" });
  assert.equal(exitCode, 1, all);
  assert.match(all ?? "", /is not this lab's\. Nothing was touched/);
  return { happened: "exit 1", lost: /destroy|undefine/.test(await asked()) ? "the domain" : "nothing" };
});

fault("C3: a destroy while Docker does not answer keeps the recorded state", async () => {
  await program("docker", "echo 'Cannot connect to the Docker daemon' >&2; exit 1");
  const { exitCode } = await run("destroy");
  return {
    happened: `exit ${exitCode}`,
    lost: exitCode === 0 ? "the record of a living machine" : "nothing",
  };
});

fault("`lab down` as another user than the owner of the running VirtualBox machine", async () => {
  await program("VBoxManage", "");
  await program("ssh", "exit 0");
  const noted = join(folder, ".lab/ssh", `agent.${stack}`);
  await mkdir(noted, { recursive: true });
  await writeFile(join(noted, "known_hosts"), `agent.${stack} ssh-ed25519 AAAA\n`);
  const { exitCode, all } = await run("destroy", { LAB_PROVIDER: "virtualbox" });
  assert.match(all ?? "", /virtualbox lists no machine agent of this lab, but it answers over ssh/);
  return {
    happened: `exit ${exitCode}`,
    lost: exitCode === 0 ? "the record of a living machine" : "nothing",
  };
});

fault("a user's stopped container is in the machines' network: the network stays for its start", async () => {
  await program(
    "docker",
    `case "$*" in ps*network=net1*) echo theirs ;; "ps "*machine) ;; "ps "*) echo c0ffee ;; "network ls"*) echo net1 ;; esac`,
  );
  const { exitCode, all } = await run("destroy");
  assert.equal(exitCode, 0, all);
  assert.match(
    all ?? "",
    /warning: the network net1 stays, because this lab did not create what is in it: theirs/,
  );
  return { happened: "a warning", lost: /network rm/.test(await asked()) ? "the network" : "nothing" };
});

for (const [state, command] of [
  ["paused", "unpause"],
  ["exited", "start"],
] as const)
  fault(`C3: a container that is ${state} is ${command === "start" ? "started" : "unpaused"}`, async () => {
    await program("ssh", "exit 0");
    await program(
      "docker",
      `case "$*" in
      "ps "*) echo c0ffee ;;
      "network ls"*) echo net1 ;;
      "network inspect"*) echo 192.168.42.0/24 ;;
      inspect*Networks*) echo "bridge1 net1" ;;
      inspect*) echo ${state} ;;
      info*) echo 2 ;; esac`,
    );
    const { exitCode, all } = await run("update");
    assert.equal(exitCode, 0, all);
    const log = await asked();
    assert.match(log, new RegExp(`^docker ${command} c0ffee$`, "m"));
    return { happened: `docker ${command}`, lost: /docker (rm|run)/.test(log) ? "the machine" : "nothing" };
  });

fault("C3: networks pruned while the machines were stopped are recreated", async () => {
  await program("ssh", "exit 0");
  await program(
    "docker",
    `case "$*" in
    "ps "*) echo c0ffee ;;
    "network ls"*) echo bridge1 ;;
    "network inspect"*) echo 172.17.0.0/16 ;;
    "network create"*) echo net2 ;;
    inspect*Networks*) echo "bridge1 net1" ;;
    inspect*) echo exited ;;
    info*) echo 2 ;; esac`,
  );
  const { exitCode, all } = await run("update");
  assert.equal(exitCode, 0, all);
  assert.match(
    await asked(),
    /network create --label k3s-lab\.id=\S+ --subnet 192\.168\.42\.0\/24[\s\S]*network connect --ip 192\.168\.42\.111 net2 c0ffee[\s\S]*docker start c0ffee/,
  );
  return { happened: "recreated with the machine's address", lost: "nothing" };
});

fault("H8: a machine with more CPUs than the host gets what there is, with a message", async () => {
  await program("ssh", "exit 0");
  await program(
    "docker",
    `case "$*" in "ps "*) echo c0ffee ;; "network ls"*) echo net1 ;; "network inspect"*) echo 192.168.42.0/24 ;;
    inspect*Networks*) echo net1 ;; inspect*) echo running ;; info*) echo 1 ;; esac`,
  );
  const { exitCode, all = "" } = await run("update");
  assert.equal(exitCode, 0, all);
  assert.match(all, /^warning: agent asks for 2 CPUs, but Docker has only 1$/m);
  assert.match(await asked(), /docker update --cpu-period 100000 --cpu-quota 200000/);
  return { happened: "a warning; the machine runs", lost: "nothing" };
});

fault("H7: a container accepts a key that no file on this machine holds", async () => {
  const recipe = await readFile(join(root, "vagrant/image/container.sh"), "utf8");
  const [, script = ""] = /<<'SCRIPT'\n([\s\S]*?)\nSCRIPT/.exec(recipe) ?? [];
  assert.match(script, /proc\/1\/environ/);
  await writeFile(join(folder, "environ"), "A=1\0K3S_LAB_SSH_KEY=ssh-ed25519 AAAA lab\0B=2\0");
  await program("chown", "");
  const here = script
    .replaceAll("/proc/1/environ", `'${folder}/environ'`)
    .replaceAll("/home/vagrant/.ssh", folder);
  await execa("sh", ["-euc", here]);
  const keys = join(folder, "authorized_keys");
  assert.equal(await readFile(keys, "utf8"), "ssh-ed25519 AAAA lab\n");
  assert.equal((await stat(keys)).mode & 0o777, 0o600);
  assert.match(await asked(), /chown vagrant:vagrant/);
  const vagrantfile = await readFile(join(root, "vagrant/Vagrantfile"), "utf8");
  assert.doesNotMatch(vagrantfile, /:\/home\/vagrant\/\.ssh/);
  return { happened: "the checkout may have any owner, and may be moved", lost: "nothing" };
});

/** Docker with one container: what `docker ps` prints depends on the labels that it is asked for. */
const dockerHolding = (labels: Readonly<Record<string, string>>) =>
  program(
    "docker",
    [
      'has() { case " $* " in *" $want "*) ;; *) exit 0 ;; esac; }',
      '[ "$1" = ps ] || exit 0',
      'for argument; do case "$argument" in label=*) want=$(echo "$argument" | cut -c 7-)',
      `  has ${Object.entries(labels)
        .map(([key, value]) => `'k3s-lab.${key}=${value}'`)
        .join(" ")} ;; esac; done`,
      `case "$*" in *lost=*) echo 'lost=${labels.id}' ;; *) echo c0ffee ;; esac`,
    ].join("\n"),
  );

fault("destroy and remove-leftovers keep another lab's container in a checkout of this path", async () => {
  await dockerHolding({ id: "another-lab", stack, machine: "agent", generation: "g7", checkout: folder });
  for (const action of ["destroy", "remove-leftovers"]) assert.equal((await run(action)).exitCode, 0);
  return { happened: "left", lost: /docker rm/.test(await asked()) ? "the container" : "nothing" };
});

fault(".lab/id was lost: destroy does not report a running machine as gone", async () => {
  await dockerHolding({ id: "old-id", stack, machine: "agent", generation: "g1", checkout: folder });
  const docker = await run("destroy");
  const description = marked().replace(id, "old-id");
  await virsh({ [`k3s-lab-${stack}-agent`]: { state: "running", description } });
  const libvirt = await run("destroy", { LAB_PROVIDER: "libvirt" });
  for (const { exitCode, all } of [docker, libvirt]) {
    assert.equal(exitCode, 1, all);
    assert.match(all ?? "", /was created under the lab id old-id.*`echo old-id >'\S+\/\.lab\/id'`/);
  }
  return { happened: "exit 1, with the command that restores the id", lost: "nothing" };
});

fault("H14: idle networks of other Vagrant projects stay", async () => {
  await program(
    "docker",
    `case "$*" in
    "ps "*) ;;
    "network ls"*label=k3s-lab.id=*) printf 'ours\\nof-k3d k3d\\n' ;;
    "network ls"*) printf 'ours\\ntheirs\\n' ;; esac`,
  );
  const removed: string[] = [];
  for (const action of ["destroy", "remove-leftovers"]) {
    const { exitCode, all } = await run(action);
    assert.equal(exitCode, 0, all);
    removed.push(...[...(await asked()).matchAll(/network rm (\S+)/g)].map(([, name = ""]) => name));
  }
  return {
    happened: `removed: ${[...new Set(removed)]}`,
    lost: removed.filter((name) => name !== "ours").join() || "nothing",
  };
});

fault(
  "the machines' network is removed with the last of them, even if the lab has k3d clusters",
  async () => {
    await program(
      "docker",
      `case "$*" in *label=k3s-lab.machine*|*network=*) ;; "ps "*of_stack*) ;; "ps "*) echo a-node-of-k3d ;; "network ls"*) echo ours ;; esac`,
    );
    const { exitCode, all } = await run("destroy");
    assert.equal(exitCode, 0, all);
    assert.match(await asked(), /network rm ours/);
    return { happened: "removed", lost: "nothing" };
  },
);

fault("H14: a network stays while a stopped machine of this lab needs it", async () => {
  await program(
    "docker",
    `case "$*" in *label=k3s-lab.machine=*) ;; "ps "*"label=k3s-lab.machine "*|"ps "*label=k3s-lab.machine) echo another-machine ;; "network ls"*) echo ours ;; esac`,
  );
  const { exitCode, all } = await run("destroy");
  assert.equal(exitCode, 0, all);
  return { happened: "kept", lost: /network rm/.test(await asked()) ? "the network" : "nothing" };
});

fault("C3: Vagrant's note of a machine is lost: the machine is adopted, not recreated", async () => {
  await virsh({ [`k3s-lab-${stack}-agent`]: { state: "running", description: marked() } });
  await program("vagrant", "exit 0");
  await program("ssh", "exit 0");
  await run("update", { LAB_PROVIDER: "libvirt" });
  const noted = join(folder, ".lab", stack, "vagrant/machines/agent/libvirt/id");
  assert.equal(await readFile(noted, "utf8"), `uuid-of-k3s-lab-${stack}-agent`);
  return {
    happened: "noted again",
    lost: /undefine|destroy/.test(await asked()) ? "the machine" : "nothing",
  };
});

fault("C4: a destroy acts on the recorded host, not on another at its address", async () => {
  const machine = JSON.stringify({ ...host, role: "agent" });
  await program("ssh", `exec env PATH='${folder}/host:${path}' bash -s`);
  await mkdir(join(folder, "host"));
  for (const [name, script] of [
    ["cat", 'if [ "$1" = /etc/machine-id ]; then echo m2; else exec /bin/cat "$@"; fi'],
    ["sudo", `echo uninstalled >>'${folder}/log'; exit 0`],
  ] as const)
    await writeFile(join(folder, "host", name), `#!/bin/sh\n${script}\n`, { mode: 0o755 });
  const { exitCode, all } = await run("destroy", {
    LAB_PROVIDER: "hosts",
    LAB_MACHINE: machine,
    LAB_GENERATION: "m1",
  });
  assert.equal(exitCode, 0, all);
  assert.match(all ?? "", /another host answers at the address of pi, and was left alone/);
  return { happened: "said", lost: /uninstalled/.test(await asked()) ? "K3s of another host" : "nothing" };
});

for (const shell of ["bash", "fish", "tcsh"])
  test(`a script for a host does not depend on its user's login shell: ${shell}`, async (t) => {
    if ((await execa(shell, ["-c", "true"], { reject: false })).failed)
      return t.skip(`there is no ${shell} here`);
    await program("ssh", `printf 'Welcome {"to":1} this host'\nexec ${shell} -c "$4"`);
    const command = (text: string, input: string) =>
      execa("sh", ["-euc", `. '${root}/vagrant/on.sh'; ${text}`], {
        input,
        reject: false,
        env: { K3S_LAB_ROOT: folder },
      });
    const asked = await command(`on pi.x 'uname -s; { echo "it\\$HOME"; } 2>/dev/null || exit 4'`, "");
    assert.equal(asked.stdout, "Linux\nit$HOME");
    assert.equal(
      (await command("on pi.x 'sh -c' \"'read -r x; echo got \\$x; cat'\"", "a\nb!\\n")).stdout,
      "got a\nb!\\n",
    );
    assert.equal((await command("on pi.x exit 3", "")).exitCode, 3);
  });

const noRuby = (await execa("ruby", ["-v"], { reject: false })).failed && "ruby is not installed here";

fault(
  "plain `vagrant destroy NAME`: a remaining server is told, by a complete script",
  async () => {
    const stubs = `
    module Vagrant; module Errors; class VagrantError < StandardError; end; end; end
    source = File.read(ARGV[0])
    SERVERS = MACHINES = [{ "name" => "s1", "ip" => "10.0.0.1" }, { "name" => "s2", "ip" => "10.0.0.2" }]
    require "timeout"
    def k3s_args(_) = "--node-label=a=b"
    %w[scripts run_on run_leave tell_servers].each do |name|
      eval(source[/^def #{name}\\b.*?^end/m].gsub("__dir__", "File.dirname(ARGV[0])"))
    end
    class Connection
      def initialize(_) = nil
      def sudo(command, **)
        puts "told:#{command.sub(/^echo (\\S+)/) { puts $1.unpack1("m"); "" }}"
        0
      end
    end
    module Vagrant; def self.plugin(_) = Struct.new(:manager).new(Struct.new(:communicators).new({ ssh: Connection })); end
    class Peer
      def name = :s1
      def state = Struct.new(:id).new(:running)
      def config = Struct.new(:vm).new(Struct.new(:communicator).new(nil))
    end
    tell_servers([Peer.new], Struct.new(:name, :provider_name).new(:s2, :docker), "before")`;
    const { stdout } = await execa("ruby", ["-e", stubs, join(root, "vagrant/cluster.rb")]);
    assert.match(
      stdout,
      /^told: \| base64 -d \| BY_HAND=yes NODE_NAME=s2 NODE_IP=10\.0\.0\.2 K3S_ARGS='--node-label=a=b' timeout 600 bash -s before$/m,
    );
    return {
      happened: "told",
      lost: /^until_true\(\)/m.test(stdout)
        ? "nothing"
        : "what the server leaves in etcd: the script ends at once",
    };
  },
  { skip: noRuby },
);

fault(
  "libvirt: removing a machine was killed before its disk was deleted: the next up is not refused",
  async () => {
    const disk = /vol-delete --pool k3s-lab (\S+)/;
    await virsh({});
    await program("vagrant", "");
    const up = () => run("up", { LAB_PROVIDER: "libvirt" });
    await up();
    assert.doesNotMatch(await asked(), disk, "a disk that this lab has no note of may be another's");
    const noted = join(folder, ".lab", stack, "vagrant/machines/agent/libvirt/id");
    await mkdir(join(noted, ".."), { recursive: true });
    await writeFile(noted, "uuid-that-is-gone");
    await up();
    const log = await asked();
    assert.equal(disk.exec(log)?.[1], `k3s-lab-${stack}-agent.img`, log);
    assert.ok(log.search(disk) < log.lastIndexOf("vagrant up"), log);
    return { happened: "the rest of the disk is deleted, then the machine is created", lost: "nothing" };
  },
);

test("a new container is done when it answers ssh, which is asked several times a second", async () => {
  await program("docker", 'case "$1" in info) echo 2 ;; esac');
  await program("vagrant", "");
  await program("ssh", `[ "$(grep -c '^ssh ' '${folder}/log')" -ge 3 ]`);
  const { exitCode, all } = await run("up");
  assert.equal(exitCode, 0, all);
  const [made, ...logins] = (await asked()).split("\n").filter((line) => /^(vagrant|ssh) /.test(line));
  assert.match(made ?? "", /^vagrant up /);
  assert.equal(logins.length, 3);
  for (const login of logins) assert.match(login, /ConnectionAttempts=1 /);
});
