import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { chmod, mkdir, mkdtemp, readdir, readFile, rm, stat, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { after, test } from "node:test";
import { execa } from "execa";
import { root } from "../../stacks/lib/paths.ts";
import { type Machine, provision } from "../../vagrant/provision/fake-machine.ts";
import { fault } from "./table.ts";

// K3s's scripts against machines that are played: what is lost is looked for, not believed.

const folder = await mkdtemp(join(tmpdir(), "k3s-faults-"));
after(() => rm(folder, { recursive: true }));

const runs = { environment: { K3S_ARGS: "--write-kubeconfig-mode=644" } };
const dies = 'grep -q "$BAD" $(dirname $0)/../etc/systemd/system/k3s.service && ends || up';

/** What a machine had and has no more, or runs and should not, after something was done to it that must not cost anything. */
async function lost(name: string, { log, path }: Awaited<ReturnType<typeof provision>>): Promise<string> {
  const missing = [
    "var/lib/rancher/k3s/server/db/state.db",
    "etc/rancher/k3s/token",
    "usr/local/bin/k3s",
  ].filter((file) => !existsSync(path(file)));
  const uninstalls = log.filter((line) => /(uninstall|killall)\.sh$/.test(line));
  const { stdout } = await provision(name, { ...runs, mode: "observe" });
  const state = /^state (.*)$/m.exec(stdout)?.[1];
  const all = [...missing, ...uninstalls, ...(state === "healthy" ? [] : [`K3s: ${state}`])];
  return all.length === 0 ? "nothing" : all.join(", ");
}

const changes: readonly (readonly [string, Machine, RegExp])[] = [
  [
    "a flag that K3s does not know",
    { environment: { K3S_ARGS: "--tls-sans=foo" } },
    /not defined: -tls-sans/,
  ],
  ...[
    "--kubelet-arg=nonsense=1",
    "--data-dir=/nowhere",
    "--https-listen-port=7443",
    "--bind-address=1.2.3.4",
  ].map((flag): readonly [string, Machine, RegExp] => [
    `${flag}, with which K3s ends or is not found`,
    { environment: { K3S_ARGS: flag }, start: dies.replace("$BAD", flag.slice(2)) },
    /K3s runs as before\. K3s says: level=fatal msg="the reason"/,
  ]),
  [
    "a node that is not Ready in time",
    {
      environment: { K3S_ARGS: "--v=2" },
      start: dies.replace("$BAD", "v=2").replace("ends", "{ has_data; touch $(dirname $0)/../active; }"),
    },
    /K3s runs as before/,
  ],
];
for (const [what, machine, message] of changes)
  fault(`C1: on a running server: ${what}`, async () => {
    await provision(what, runs);
    const outcome = await provision(what, machine);
    assert.notEqual(outcome.status, 0);
    assert.match(outcome.stderr, message);
    return { happened: `exit ${outcome.status}, the old flags run`, lost: await lost(what, outcome) };
  });

fault("C1: a K3s change is killed, and the file is corrected", async () => {
  const name = "killed";
  await provision(name, runs);
  await provision(name, {
    environment: { K3S_ARGS: "--bad=1" },
    start: "kill -9 $PPID $(cut -d ' ' -f 4 /proc/$PPID/stat)",
  });
  const outcome = await provision(name, runs);
  assert.equal(outcome.status, 0, outcome.stderr);
  return {
    happened: "the next run continues, and K3s runs with the stack file's flags",
    lost: await lost(name, outcome),
  };
});

for (const [what, file] of [
  ["K3s's configuration", "etc/rancher/k3s/k3s-lab-resolv.conf.new"],
  ["the network's link file", "etc/systemd/network/10-k3s-lab-flannel.link"],
  ["the K3s files of the machine", undefined],
] as const)
  fault(`the disk is full while a K3s change writes ${what}`, async () => {
    const name = `full for ${what}`;
    const offline: Machine = { ...runs, driver: "virtio_net", files: { "opt/k3s-lab/offline": "" } };
    const { path } = await provision(name, offline);
    if (file !== undefined) {
      await rm(path(file), { force: true });
      await symlink("/dev/full", path(file));
    }
    const outcome = await provision(name, {
      environment: { K3S_ARGS: "--v=2" },
      // Without its x it cannot be run.
      files: file === undefined ? { "opt/k3s-lab/place.sh": "" } : {},
    });
    assert.match(outcome.stderr, /K3s runs as before/);
    return { happened: `exit ${outcome.status}, the old flags run`, lost: await lost(name, outcome) };
  });

fault("the disk is full, and the previous files cannot be restored after a failed change", async () => {
  const name = "full for putting back";
  const { path } = await provision(name, runs);
  await writeFile(
    path("bin/cp"),
    `#!/bin/sh\ncase "$*" in *k3s-lab/before/*k3s.service*) exit 1 ;; *) exec /usr/bin/cp "$@" ;; esac\n`,
    { mode: 0o755 },
  );
  const { status, stderr } = await provision(name, {
    environment: { K3S_ARGS: "--bad=1" },
    start: dies.replace("$BAD", "bad=1"),
  });
  assert.equal(status, 1);
  assert.match(stderr, /cannot be copied back.*Free some disk space/);
  const missing = ["etc/systemd/system/k3s.service", "etc/rancher/k3s/token", "usr/local/bin/k3s"].filter(
    (one) => !existsSync(path(one)),
  );
  assert.deepEqual(await readdir(path("etc/rancher")), ["k3s"]);
  await rm(path("bin/cp"));
  const next = await provision(name, runs);
  assert.equal(next.status, 0, next.stderr);
  const left = missing.length === 0 ? await lost(name, next) : missing.join(", ");
  return { happened: "exit 1; the next run continues", lost: left };
});

fault("C9: the first of three servers is lost while no other answers", async () => {
  const { status, stderr, log } = await provision("first lost", {
    environment: {
      SERVERS: "server=192.168.42.110 two=192.168.42.111 three=192.168.42.112",
      CLUSTER_CA: "c".repeat(64),
    },
  });
  assert.equal(status, 1);
  assert.match(stderr, /does not start a second cluster\. .*'A cluster that lost most of its servers'/);
  const started = log.filter((line) => line.includes("--cluster-init"));
  return {
    happened: "exit 1 with K3s's recovery procedure",
    lost: started.length ? "a second cluster" : "nothing",
  };
});

fault("H3: eight processes request a token that does not exist yet", async () => {
  const odd: string[] = [];
  for (let round = 0; round < 24; round += 1) {
    const file = join(folder, `token-${round}`);
    const asked = Array.from({ length: 8 }, () => execa(join(root, "vagrant/provision/token.sh"), [file]));
    const tokens = new Set((await Promise.all(asked)).map(({ stdout }) => stdout));
    if (tokens.size !== 1 || !/^[0-9a-f]{64}$/.test([...tokens][0] ?? "")) odd.push([...tokens].join("|"));
  }
  return { happened: "all 24 print the same token", lost: odd.length ? odd.join(" ") : "nothing" };
});

fault("a secret that a user wrote into a file, on one line or several", async () => {
  const file = join(folder, "password");
  const read = async (text: string) => {
    await writeFile(file, text);
    const { exitCode, stdout, stderr } = await execa(join(root, "vagrant/provision/token.sh"), [file], {
      reject: false,
    });
    return exitCode === 0 ? stdout : `${exitCode} ${stderr}`;
  };
  for (const text of ["a b", "a b\n"]) assert.equal(await read(text), "a b");
  // One program would take the first line for the password, another all of them.
  for (const text of ["a\nb\n", "a\nb", "a\n\n", "a\r\n"])
    assert.match(
      await read(text),
      /^1 token\.sh: \S+password must be one line of text/,
      JSON.stringify(text),
    );
  return { happened: "exactly one line is accepted; anything else is refused", lost: "nothing" };
});

/**
 * Runs `vagrant/k3s.sh` with an ssh that writes down which machine was asked what, and what was given to install there, and
 * answers by a script.
 */
async function leaving(
  name: string,
  servers: string | undefined,
  answer: string,
  { script = "k3s.sh", action = "uninstall", node = "three", role = "server", playbook = "" } = {},
) {
  const lab = join(folder, name);
  const put = async (file: string, text: string) => {
    await mkdir(dirname(join(lab, file)), { recursive: true });
    await writeFile(join(lab, file), text);
    await chmod(join(lab, file), 0o755);
  };
  await put(
    "bin/ssh",
    `#!/bin/sh\ncat >"${lab}/got"\nshift 2\nwhile [ "$1" = -o ]; do shift 2; done\nalias=$1; shift\nprintf '\\nk3s-lab-begins\\n'\ncoded=$(printf %s "$*" | sed -n 's/.*echo \\([A-Za-z0-9+/=]*\\) | base64 -d.*/\\1/p')\n[ -z "$coded" ] || set -- "$(echo "$coded" | base64 -d)"\ncase "$*" in true) what=alive ;; *" bash -s") what=uninstall ;; *) what="\${*##* }" ;; esac\necho "$alias $what" >>"${lab}/log"\n[ "$what" != install ] || cp "${lab}/got" "${lab}/given"\n${answer}\n`,
  );
  if (playbook) await put("bin/ansible-playbook", `#!/bin/sh\necho "$*"\n${playbook}\n`);
  for (const file of ["k3s.sh", "leave.sh", "load-balancer.sh", "uninstall.sh"])
    await put(`vagrant/provision/${file}`, "");
  const common = "vagrant/provision/common.sh";
  await put(common, await readFile(join(root, common), "utf8"));
  await put(".lab/id", "our-id");
  if (servers !== undefined) await put(".lab/cluster/servers", servers);
  const { exitCode, stdout, stderr } = await execa(join(root, "vagrant", script), [action], {
    input: `token\n${btoa("secret")}\n`,
    timeout: 120_000,
    reject: false,
    env: {
      PATH: `${lab}/bin:${process.env.PATH}`,
      K3S_LAB_ROOT: lab,
      LAB_STACK: "cluster",
      NODE_NAME: node,
      NODE_IP: "192.168.42.112",
      NODE_ROLE: role,
      K3S_VERSION: "v1.25.4+k3s1",
      K3S_ARGS: "",
      SERVERS: "one=192.168.42.110 two=192.168.42.111 three=192.168.42.112",
      ...(playbook ? { INVENTORY: "{}" } : {}),
    },
  });
  const log = (await readFile(join(lab, "log"), "utf8").catch(() => "")).trimEnd().split("\n");
  const given = await readFile(join(lab, "given"), "utf8").catch(() => "");
  return { exitCode, stdout, stderr, log, given };
}

const three = "one=192.168.42.110 two=192.168.42.111 three=192.168.42.112\n";

fault("a server leaves, and etcd does not remove it", async () => {
  const { exitCode, stderr, log } = await leaving("kept", three, 'test "$what" != before');
  assert.equal(exitCode, 1);
  assert.match(
    stderr,
    /three stays a server, .*nothing was uninstalled.*'A cluster that lost most of its servers'/,
  );
  return {
    happened: "exit 1; it remains a server",
    lost: log.some((line) => line.endsWith("uninstall")) ? "the server" : "nothing",
  };
});

fault("a server leaves, and no other can be reached", async () => {
  const { exitCode, log } = await leaving("silent", three, 'test "$alias" = three.cluster || exit 255');
  assert.equal(exitCode, 1);
  return {
    happened: "exit 1; it remains a server",
    lost: log.some((line) => line.endsWith("uninstall")) ? "the server" : "nothing",
  };
});

test("a server leaves: if one of the others cannot tell the cluster, the next one does", async () => {
  const answer = 'case "$alias $what" in "one.cluster before") exit 4 ;; esac';
  const { exitCode, log } = await leaving("starting", three, answer);
  assert.equal(exitCode, 0);
  assert.deepEqual(log.slice(1, 4), ["one.cluster before", "two.cluster before", "three.cluster uninstall"]);
});

fault("three servers become one: the leaving ones are not asked about each other", async () => {
  const { exitCode, log } = await leaving("to one", "one=192.168.42.110\n", "");
  assert.equal(exitCode, 0);
  assert.deepEqual(log, [
    "three.cluster alive",
    "one.cluster before",
    "three.cluster uninstall",
    "one.cluster after",
  ]);
  return { happened: "the remaining server is told, before and after", lost: "nothing" };
});

fault("plain pulumi destroys a whole cluster: no leaving server is told of the others", async () => {
  const { exitCode, log } = await leaving("all", undefined, "");
  assert.equal(exitCode, 0);
  assert.deepEqual(log, ["three.cluster alive", "three.cluster uninstall"]);
  return { happened: "K3s is uninstalled, as fast as by lab down", lost: "nothing" };
});

fault("a server leaves, and the list of remaining servers is unreadable", async () => {
  // Root may read everything but a folder.
  await mkdir(join(folder, "unread", ".lab", "cluster", "servers"), { recursive: true });
  const { exitCode, stderr, log } = await leaving("unread", undefined, "");
  assert.equal(exitCode, 1);
  assert.match(stderr, /\.lab\/cluster\/servers cannot be read: nothing was uninstalled/);
  return {
    happened: "exit 1: only a missing list means that no server remains",
    lost: log.some((line) => line.endsWith("uninstall")) ? "the server" : "nothing",
  };
});

test("a node is installed in few logins: its secrets come with the script, and what has no data is not cordoned", async () => {
  // What a machine gets is run there, as far as it goes before the script itself.
  const answer = `case "$what" in
observe) printf 'state K3s is not installed\\npreinstalled v1.25.4+k3s1\\n' ;;
*server-ca.crt\\"*) echo "abc /ca" ;;
esac`;
  const { exitCode, log, given } = await leaving("new", three, answer, {
    ...{ action: "install", node: "worker", role: "agent" },
  });
  assert.equal(exitCode, 0);
  assert.deepEqual(
    log.filter((line) => line.startsWith("worker")),
    ["worker.cluster observe", "worker.cluster install", "worker.cluster /var/lib/k3s-lab/slowness"],
  );
  const place = join(folder, "new", "memory");
  const script = `${given.replaceAll("/run/k3s-lab", place)}echo went on`;
  const { stdout } = await execa("bash", ["-s"], { input: script });
  assert.equal(stdout, "went on");
  assert.equal(await readFile(join(place, "token"), "utf8"), "token");
  assert.equal(await readFile(join(place, "secret"), "utf8"), "secret");
  assert.equal((await stat(join(place, "token"))).mode & 0o777, 0o600);
});

const answering = `case "$what" in
observe) printf 'state healthy\\ndata yes\\npreinstalled v1.25.4+k3s1\\n' ;;
*server-ca.crt\\"*) echo "abc /ca" ;;
check) echo change ;;
esac`;
for (const [role, node, from] of [
  ["agent", "worker", "one"],
  ["server", "two", "two"],
] as const)
  test(`labels and taints of a running ${role} follow its flags, before it takes pods again`, async () => {
    const { exitCode, log } = await leaving(`marked ${role}`, three, answering, {
      action: "install",
      node,
      role,
    });
    assert.equal(exitCode, 0);
    const steps = log.map((line) => line.split(" ").slice(0, 2).join(" "));
    const after = steps.slice(steps.indexOf(`${node}.cluster install`) + 1);
    assert.deepEqual(
      after.filter((step) => !step.endsWith("slowness")),
      [`${from}.cluster marks`, ...(role === "agent" ? ["one.cluster uncordon"] : [])],
    );
  });

test("a node without its labels and taints is not finished, and takes pods again", async () => {
  const { exitCode, log } = await leaving("unmarked", three, `${answering}; test "$what" != marks`, {
    ...{ action: "install", node: "worker", role: "agent" },
  });
  assert.equal(exitCode, 1);
  assert.equal(log.at(-1), "one.cluster uncordon");
});

for (const [what, servers, asked] of [
  ["Traefik's settings are removed before it", "one=192.168.42.110\n", ["one.cluster unbalance"]],
  ["no server is asked if the whole cluster is removed", undefined, []],
] as const)
  test(`a load balancer leaves: ${what}`, async () => {
    const { exitCode, log } = await leaving(`unbalanced ${what}`, servers, "", {
      ...{ script: "load-balancer.sh", action: "remove", node: "lb" },
    });
    assert.equal(exitCode, 0);
    assert.deepEqual(log, [...asked, "lb.cluster alive", "lb.cluster remove"]);
  });

test("a playbook's reason comes last; its secrets are the user's only, in no argument, and are deleted with the node", async () => {
  const answer = `${answering}; case "$what" in *why) echo 'K3s runs as before' ;; esac`;
  const act = (action: string, playbook: string) =>
    leaving("playbook", three, answer, { action, node: "worker", role: "agent", playbook });
  const { exitCode, stderr } = await act("install", "exit 2");
  assert.equal(exitCode, 1);
  assert.match(stderr, /vagrant\/ansible\/k3s\.yml\nK3s runs as before$/);
  assert.doesNotMatch(stderr, /token/);
  const kept = join(folder, "playbook/.lab/cluster/ansible");
  assert.equal((await stat(join(kept, "secrets/worker/token"))).mode & 0o777, 0o600);
  assert.equal(await readFile(join(kept, "secrets/worker/token"), "utf8"), "token");
  assert.equal(await readFile(join(kept, "inventory/worker.json"), "utf8"), "{}\n");
  assert.equal((await act("uninstall", "")).exitCode, 0);
  assert.equal(existsSync(kept), false);
});

fault("C1: an agent's change fails after its drain", async () => {
  const answer = `case "$what" in
observe) printf 'state healthy\\ndata yes\\npreinstalled v1.25.4+k3s1\\n' ;;
*server-ca.crt\\"*) echo "abc /ca" ;;
check) echo change ;;
install) exit 1 ;;
esac`;
  const { exitCode, log } = await leaving("failed", three, answer, {
    action: "install",
    node: "worker",
    role: "agent",
  });
  assert.equal(exitCode, 1);
  assert.equal(log.at(-1), "one.cluster uncordon");
  return { happened: "exit 1; the agent accepts pods again", lost: "nothing" };
});

fault(
  "C9: the first of three servers is lost, and the servers that may have the cluster cannot be asked",
  async () => {
    const { status, stderr, log } = await provision("first lost, others silent", {
      environment: { SERVERS: three.trim().replace("one=", "server="), SILENT: "two three" },
    });
    assert.equal(status, 1);
    assert.match(
      stderr,
      /do not say whether they have the cluster's data: two three\. server must not start a second/,
    );
    const started = log.filter((line) => line.includes("--cluster-init"));
    return { happened: "exit 1", lost: started.length ? "the one cluster: there are two" : "nothing" };
  },
);

fault(
  "C9: the first of three servers was refused when it rejoined, and has only its agent certificate",
  async () => {
    const { status, log } = await provision("refused once", {
      environment: { SERVERS: three.trim().replace("one=", "server="), SILENT: "two three" },
      files: {
        "var/lib/rancher/k3s/agent/client-kubelet.crt": "",
        "var/lib/k3s-lab/installing": "",
        "etc/rancher/k3s/token": "s3cr3t",
      },
    });
    assert.equal(status, 1);
    const started = log.filter((line) => line.includes("--cluster-init"));
    return { happened: "exit 1", lost: started.length ? "the one cluster: there are two" : "nothing" };
  },
);

for (const [others, answer, told] of [
  ["have the cluster", "echo 'abc123  -'", "CLUSTER_CA='?abc123'? SILENT=''"],
  ["do not answer", "exit 255", "CLUSTER_CA='' SILENT='? two three'"],
] as const)
  test(`C9: the first server, which lost its data, learns that the others ${others}`, async () => {
    const observed = "state K3s is not installed\\ndata lost\\npreinstalled v1.25.4+k3s1\\n";
    const machine = `case "$alias $what" in "one.cluster observe") printf '${observed}' ;; "one.cluster install") printf '%s\\n' "$*" ;; one.*) ;; *) ${answer} ;; esac`;
    const { stdout } = await leaving(`first, others ${others}`, three, machine, {
      action: "install",
      node: "one",
    });
    assert.match(stdout, new RegExp(told));
  });

/** Runs uninstall.sh on a machine that is played. @returns what it said. */
async function uninstall({ path }: Awaited<ReturnType<typeof provision>>, owner: string): Promise<string> {
  const scripts = ["common.sh", "uninstall.sh"].map((file) =>
    readFile(join(root, "vagrant/provision", file), "utf8"),
  );
  const { all, failed } = await execa("bash", ["-s"], {
    all: true,
    reject: false,
    env: { PATH: `${path("bin")}:${process.env.PATH}`, NODE_NAME: "server", LAB_OWNER: owner },
    input: (await Promise.all(scripts))
      .join("")
      .replaceAll(/(?<![\w$])\/(opt\/k3s-lab|etc\/|usr\/|var\/lib\/|run\/k3s-lab)/g, `${path("")}/$1`),
  });
  assert.equal(failed, false, all);
  return all;
}

for (const [whose, takesOver] of [
  ["another checkout's lab", { token: "theirs", environment: { LAB_OWNER: "their-id/cluster" } }],
  ["a person", undefined],
] as const)
  fault(`a host was given away: its K3s now belongs to ${whose}, with the same node name`, async () => {
    const name = `given to ${whose}`;
    const ours = { environment: { LAB_OWNER: "our-id/cluster" } };
    const { path } = await provision(name, ours);
    await execa("sh", [path("usr/local/bin/k3s-uninstall.sh")]);
    await rm(path("usr/local/bin/k3s"));
    await provision(name, takesOver ?? ours);
    if (takesOver === undefined) await rm(path("etc/rancher/k3s/token"));
    const said = await uninstall(await provision(name, { ...ours, mode: "observe" }), "our-id/cluster");
    const lost = existsSync(path("var/lib/rancher/k3s/server/db/state.db")) ? "nothing" : "their cluster";
    return { happened: said, lost };
  });

fault("a host without any K3s: others' files in folders of such names stay", async () => {
  const name = "never installed";
  const files = {
    "opt/k3s-lab/.lab/id": "a checkout",
    "etc/rancher/node/password": "RKE2's",
    "etc/rancher/k3s/config.yaml.d/k3s-lab-mine.yaml": "theirs",
  };
  const machine = await provision(name, {
    mode: "observe",
    files,
    environment: { LAB_OWNER: "our-id/cluster" },
  });
  const gone = () => Object.keys(files).filter((file) => !existsSync(machine.path(file)));
  await uninstall(machine, "our-id/cluster");
  assert.deepEqual(gone(), []);
  const ours = { environment: { LAB_OWNER: "our-id/cluster" } };
  await uninstall(await provision(name, ours), "our-id/cluster");
  return {
    happened: "they stay",
    lost:
      gone()
        .filter((file) => !file.includes("password"))
        .join(", ") || "nothing",
  };
});

fault("the lab's notes on a host were removed: `lab down` still uninstalls its K3s", async () => {
  const machine = await provision("notes removed", { environment: { LAB_OWNER: "our-id/cluster" } });
  await rm(machine.path("var/lib/k3s-lab"), { recursive: true });
  await uninstall(machine, "our-id/cluster");
  const stays = existsSync(machine.path("var/lib/rancher/k3s"));
  return { happened: "it is gone", lost: stays ? "the record of a K3s that runs" : "nothing" };
});

test("the lab's own K3s is uninstalled, as is one whose uninstall was interrupted", async () => {
  const ours = { environment: { LAB_OWNER: "our-id/cluster" } };
  const machine = await provision("own", ours);
  await uninstall(machine, "our-id/cluster");
  assert.equal(existsSync(machine.path("var/lib/rancher/k3s")), false);
  const interrupted = await provision("own interrupted", ours);
  await rm(interrupted.path("etc/rancher"), { recursive: true });
  await writeFile(interrupted.path("var/lib/k3s-lab/leaving"), "");
  await uninstall(interrupted, "our-id/cluster");
  assert.equal(existsSync(interrupted.path("var/lib/rancher/k3s")), false);
});
