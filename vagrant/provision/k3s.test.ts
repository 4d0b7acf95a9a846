import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { existsSync, statSync } from "node:fs";
import { chmod, mkdir, readlink, rename, rm, rmdir, stat, symlink, writeFile } from "node:fs/promises";
import { uptime } from "node:os";
import { test } from "node:test";
import { parse } from "yaml";
import { eth1, type Machine, provision } from "./fake-machine.ts";

const serverLine =
  "install.sh SKIP=true VERSION= EXEC=server --node-ip=192.168.42.110 --flannel-iface=eth1 --write-kubeconfig-mode=644";

test("a server is installed once, with the user's own flags", async () => {
  const { status, stderr, log, read, path } = await provision("server", {});
  assert.equal(status, 0, stderr);
  assert.deepEqual(log, [serverLine, "systemctl restart k3s"]);
  assert.equal(await read("etc/rancher/k3s/token"), "s3cr3t");
  assert.equal((await stat(path("etc/rancher/k3s/token"))).mode & 0o777, 0o600);
  assert.equal(existsSync(path("run/k3s-lab/token")), false);
  assert.equal(await read("placed-for"), "server");
  assert.match(
    await read("etc/rancher/k3s/config.yaml.d/k3s-lab.yaml"),
    /^token-file: \/.*\/etc\/rancher\/k3s\/join$/m,
  );
});

test("a slow machine's API server allows more time for each request, and others keep the default", async () => {
  const slow = await provision("slow", { slower: 8 });
  assert.match(
    await slow.read("etc/rancher/k3s/config.yaml.d/k3s-lab.yaml"),
    /^kube-apiserver-arg\+: \[request-timeout=480s\]$/m,
  );
  const usual = await provision("usual", {});
  assert.doesNotMatch(await usual.read("etc/rancher/k3s/config.yaml.d/k3s-lab.yaml"), /kube-apiserver-arg/);
});

test("no request to the machine itself or the servers uses the machine's proxy, nor do K3s's", async () => {
  const proxy = { https_proxy: "http://proxy.example:3128", no_proxy: "inside.example" };
  const { status, stderr, log } = await provision("proxy", {
    environment: { ...proxy, SERVERS: "server=192.168.42.110 two=192.168.42.111" },
    installer: `echo "$NO_PROXY $no_proxy" >>"$(dirname "$0")/../../log"`,
  });
  assert.equal(status, 0, stderr);
  const direct = "inside.example,localhost,127.0.0.1,192.168.42.110,192.168.42.111";
  assert.ok(log.includes(`${direct} ${direct}`), log.join("\n"));
  const without = await provision("no proxy", {
    installer: 'echo "[$NO_PROXY]" >>"$(dirname "$0")/../../log"',
  });
  assert.ok(without.log.includes("[]"));
});

test("flannel's checksums are computed in software on a virtual network interface, and not on others", async () => {
  const file = "etc/systemd/network/10-k3s-lab-flannel.link";
  const virtual = await provision("virtio", { driver: "virtio_net" });
  assert.match(await virtual.read(file), /^OriginalName=flannel\.1\n\[Link\]\nTransmitChecksumOffload=no$/m);
  const real = await provision("real", { driver: "e1000" });
  assert.equal(existsSync(real.path(file)), false);
});

test("an agent joins its server", async () => {
  const { status, stderr, log } = await provision("agent", {
    hostname: "agent",
    addresses: eth1.replace(".110", ".111"),
    environment: {
      NODE_NAME: "agent",
      NODE_ROLE: "agent",
      NODE_IP: "192.168.42.111",
      K3S_ARGS: "",
    },
  });
  assert.equal(status, 0, stderr);
  assert.deepEqual(log, [
    "install.sh SKIP=true VERSION= EXEC=agent --node-ip=192.168.42.111 --flannel-iface=eth1 --server=https://192.168.42.110:6443",
    "systemctl restart k3s-agent",
  ]);
});

test("a failed installation is retried once after k3s-killall.sh and k3s-uninstall.sh", async () => {
  const { status, stderr, log, read } = await provision("retry", {
    installer: '[ "$attempt" = 2 ]',
  });
  assert.equal(status, 0, stderr);
  assert.deepEqual(log, [
    serverLine,
    "journalctl --no-pager --lines 1000 --unit k3s",
    "k3s-killall.sh",
    "k3s-uninstall.sh",
    serverLine,
    "systemctl restart k3s",
  ]);
  assert.equal(await read("etc/rancher/k3s/token"), "s3cr3t");
});

/** What a server that was installed once has. */
const lived = {
  "var/lib/rancher/k3s/server/db/state.db": "their objects",
  "etc/rancher/k3s/token": "s3cr3t",
  "usr/local/bin/k3s": "",
};

for (const [what, kubelet] of [
  ["kubeadm's, which runs", { hasKubelet: true }],
  ["a stopped one", { files: { "var/lib/kubelet/config.yaml": "kind: KubeletConfiguration" } }],
] as const)
  test(`with another Kubernetes's kubelet, ${what}, nothing is installed: K3s would fail and be uninstalled`, async () => {
    const { status, stderr, log, read } = await provision(`kubelet ${what}`, { ...kubelet, start: "ends" });
    assert.equal(status, 2, stderr);
    assert.match(stderr, /another Kubernetes/);
    assert.deepEqual(log, [""]);
    if ("files" in kubelet) assert.notEqual(await read("var/lib/kubelet/config.yaml"), "");
  });

test("an interrupted installation in which pods have since run is not uninstalled when it fails", async () => {
  const files = { "var/lib/k3s-lab/installing": "", "var/lib/kubelet/pods/1/x": "", ...lived };
  const { status, stderr, log, path } = await provision("lived on", { files, start: "ends" });
  assert.equal(status, 1);
  assert.match(stderr, /pods have run in it.*lab down/);
  assert.deepEqual(
    log.filter((line) => /uninstall|killall/.test(line)),
    [],
  );
  assert.ok(existsSync(path("var/lib/rancher/k3s/server/db/state.db")));
});

test("the reason why K3s ended is found although it has restarted and logged more than is shown", async () => {
  const fatal = 'level=fatal msg="the reason"';
  const journal = `#!/bin/sh\n{ echo '${fatal}'; seq -f 'started again %g' 100; } | tail -n "$3"\n`;
  const { stderr } = await provision("started again", {
    start: "ends",
    files: { "bin/journalctl": journal },
  });
  assert.match(stderr, /; its last lines are above\. K3s says: level=fatal msg="the reason"\n/);
});

test("an agent is retried with its own uninstaller", async () => {
  const { log } = await provision("agent-retry", {
    start: '[ "$attempt" = 1 ] || up',
    environment: { NODE_ROLE: "agent", NODE_NAME: "agent" },
  });
  assert.deepEqual(
    log.filter((line) => line.endsWith("uninstall.sh")),
    ["k3s-agent-uninstall.sh"],
  );
});

test("a service that ends is a failed installation; the second one shows its log and fails", async () => {
  const { status, stderr, log } = await provision("ends", {
    start: "ends",
  });
  assert.equal(status, 1);
  assert.equal(log.filter((line) => line.startsWith("install.sh")).length, 2);
  assert.match(
    stderr,
    /level=fatal msg="the reason"\nk3s\.sh on server: k3s ended, or its node was not Ready after 1 s/,
  );
});

test("a node that never becomes Ready, such as an agent without its server, is given up", async () => {
  const { status, stderr } = await provision("hangs", { start: ":" });
  assert.equal(status, 1);
  assert.match(stderr, /not Ready after 1 s/);
});

test("the token is never printed", async () => {
  const { stdout, stderr, log } = await provision("secret", { installer: "exit 1" });
  assert.doesNotMatch([stdout, stderr, ...log].join("\n"), /s3cr3t/);
});

test("what was sent for a run is removed however it ends, except after a check, which an installation follows", async () => {
  const files = {
    "run/k3s-lab/secret": "agent-token: hushhush\n",
    "home/k3s-installer.sh": "exit 1\n",
  };
  const sent = (environment: Readonly<Record<string, string>>, more: Machine = {}) =>
    provision("sent", { files, environment, carriesK3s: false, ...more });
  const left = ({ path }: Awaited<ReturnType<typeof provision>>) =>
    ["run/k3s-lab/token", ...Object.keys(files)].filter((file) => existsSync(path(file)));
  const { path } = await sent({}, { mode: "observe" });
  const environment = { INSTALLER: path("home/k3s-installer.sh") };
  assert.deepEqual(left(await sent(environment, { mode: "check" })).length, 3);
  assert.deepEqual(left(await sent({ ...environment, NODE_INTERFACE: "ens9" })), []);
  assert.deepEqual(left(await sent({ ...environment, NODE_INTERFACE: "ens9" }, { mode: "check" })), []);
  const failed = await sent(environment);
  assert.equal(failed.status, 1);
  assert.deepEqual(left(failed), []);
});

const refusals: readonly (readonly [title: string, machine: Machine, message: RegExp])[] = [
  [
    "an address on another interface",
    { addresses: eth1.replaceAll("eth1", "eth2") },
    /192\.168\.42\.110 is on eth2, not on eth1; .*`interface` in the stack file to eth2/,
  ],
  [
    "an address that differs from the stack file",
    { links: [], environment: { NODE_INTERFACE: "ens4" } },
    /192\.168\.42\.110 is on eth1, not on ens4/,
  ],
  [
    "an address that no interface has",
    { addresses: eth1.replace(".110/", ".99/") },
    /no interface carries 192\.168\.42\.110; found: eth1=192\.168\.42\.99\/24/,
  ],
  ["a missing token", { token: undefined }, /the token is missing/],
  ["an empty token", { token: "" }, /the token is missing/],
  [
    "a release that the machine does not contain",
    { environment: { K3S_VERSION: "v1.30.0+k3s1" } },
    /v1\.30\.0\+k3s1 was requested, but this machine has v1\.25\.4\+k3s1/,
  ],
  [
    "a load balancer's machine, which would have the ports of a node",
    { files: { "etc/systemd/system/k3s-lab-load-balancer.service": "" } },
    /a load balancer of the lab is on this machine/,
  ],
];

for (const [title, machine, message] of refusals)
  test(`refuses ${title} before anything is installed`, async () => {
    const { status, stderr, log } = await provision(title, machine);
    assert.equal(status, 2);
    assert.match(stderr, message);
    assert.deepEqual(log, [""]);
  });

test("a machine without its own K3s downloads the requested release", async () => {
  const { status, stderr, log } = await provision("download", { carriesK3s: false });
  assert.equal(status, 0, stderr);
  assert.match(log[0] ?? "", /^install\.sh SKIP= VERSION=v1\.25\.4\+k3s1 EXEC=server /);
});

test("a machine without eth1 is identified by its address", async () => {
  const { status, stderr, log } = await provision("enp0s8", {
    addresses: eth1.replaceAll("eth1", "enp0s8"),
    links: ["enp0s8"],
  });
  assert.equal(status, 0, stderr);
  assert.match(log[0] ?? "", /--flannel-iface=enp0s8 /);
});

test("an interface that the stack file names is used, eth1 or not", async () => {
  const { status, stderr, log } = await provision("named", {
    addresses: eth1.replaceAll("eth1", "eth2"),
    environment: { NODE_INTERFACE: "eth2" },
  });
  assert.equal(status, 0, stderr);
  assert.match(log[0] ?? "", /--flannel-iface=eth2 /);
});

test("a node is named as in the stack file, whatever the host's name is", async () => {
  const { log } = await provision("other-name", { hostname: "raspberrypi" });
  assert.match(log[0] ?? "", /--write-kubeconfig-mode=644 --node-name=server$/);
});

const three = "server=192.168.42.110 two=192.168.42.111 three=192.168.42.112";
const joins: readonly (readonly [string, Machine, RegExp])[] = [
  ["the first of several servers starts the cluster", {}, / --cluster-init$/],
  [
    "another server joins the first, which does not exist yet",
    { environment: { NODE_NAME: "two" }, hostname: "two" },
    / --server=https:\/\/192\.168\.42\.110:6443$/,
  ],
  [
    "a recreated first server joins one that answers and starts no second cluster",
    { answering: ["192.168.42.112"], environment: { CLUSTER_CA: "c".repeat(64) } },
    / --server=https:\/\/192\.168\.42\.112:6443$/,
  ],
  [
    "an agent joins a server that answers",
    {
      answering: ["192.168.42.111"],
      hostname: "agent",
      environment: { NODE_NAME: "agent", NODE_ROLE: "agent" },
    },
    / --server=https:\/\/192\.168\.42\.111:6443$/,
  ],
];
for (const [title, machine, flags] of joins)
  test(title, async () => {
    const { status, stderr, log } = await provision(title, {
      ...machine,
      environment: { SERVERS: three, ...machine.environment },
    });
    assert.equal(status, 0, stderr);
    assert.match(log[0] ?? "", flags);
  });

test("one of several servers that fails keeps its data: etcd knows it, and the next run continues", async () => {
  const { status, stderr, log } = await provision("one of three", {
    start: "ends",
    environment: { SERVERS: three },
  });
  assert.equal(status, 1);
  assert.match(
    stderr,
    /the installation failed; what exists of it stays, and the next run continues from there/,
  );
  assert.deepEqual(
    log.filter((line) => line.endsWith("uninstall.sh")),
    [],
  );
});

test("a server that lost its database and fails keeps its pods' local volumes", async () => {
  const { status, stderr, log } = await provision("local volumes", {
    start: "ends",
    files: {
      "etc/rancher/k3s/token": "s3cr3t",
      "var/lib/rancher/k3s/agent/client-kubelet.crt": "",
      "var/lib/rancher/k3s/storage/pvc-1/data": "",
    },
  });
  assert.equal(status, 1);
  assert.match(stderr, /nothing was removed, because pods have data in \S+\/storage/);
  assert.deepEqual(
    log.filter((line) => line.endsWith("uninstall.sh")),
    [],
  );
});

test("local volumes that cannot be listed, as on a failing disk, do not count as none", async () => {
  const { status, log } = await provision("local volumes on a bad disk", {
    start: "ends",
    files: { "var/lib/rancher/k3s/storage/pvc-1/data": "", "bin/ls": "#!/bin/sh\nexit 2\n" },
  });
  assert.equal(status, 1);
  assert.deepEqual(
    log.filter((line) => line.endsWith("uninstall.sh")),
    [],
  );
});

test("a run that changes nothing does not restart K3s", async () => {
  await provision("same", {});
  const { status, stderr, log } = await provision("same", {});
  assert.equal(status, 0, stderr);
  assert.deepEqual(log, [serverLine, "systemctl restart k3s"]);
});

test("another cluster's K3s is left alone", async () => {
  await provision("foreign", { token: "theirs" });
  const { status, stderr, log } = await provision("foreign", { token: "ours" });
  assert.equal(status, 2);
  assert.match(stderr, /K3s of another cluster is installed here/);
  assert.equal(log.filter((line) => line.startsWith("install.sh")).length, 1);
});

test("a later run keeps the machine's token", async () => {
  const machine = { environment: { K3S_ARGS: "--disable=traefik" } };
  await provision("again", {});
  const { status, stderr, log, read } = await provision("again", { ...machine, token: undefined });
  assert.equal(status, 0, stderr);
  assert.equal(await read("etc/rancher/k3s/token"), "s3cr3t");
  assert.match(log.at(-2) ?? "", /--disable=traefik$/);
});

// A change of what runs already.

const good = { environment: { K3S_ARGS: "--write-kubeconfig-mode=644" } };
const changed = (more: Machine = {}): Machine => ({
  ...more,
  environment: { K3S_ARGS: "--write-kubeconfig-mode=644 --disable=traefik", ...more.environment },
});
const uninstalls = (log: readonly string[]) => log.filter((line) => /(uninstall|killall)\.sh$/.test(line));

test("a flag that K3s does not know is refused with K3s's message, before anything changes", async () => {
  await provision("unknown flag", good);
  const before = await provision("unknown flag", { ...good, mode: "observe" });
  const { status, stderr, log, read } = await provision("unknown flag", {
    environment: { K3S_ARGS: "--write-kubeconfig-mode=644 --tls-sans=foo" },
  });
  assert.equal(status, 2);
  assert.match(
    stderr,
    /K3s does not accept these flags: flag provided but not defined: -tls-sans\. Nothing was touched/,
  );
  assert.deepEqual(log, [serverLine, "systemctl restart k3s"]);
  assert.equal((await provision("unknown flag", { ...good, mode: "observe" })).stdout, before.stdout);
  assert.match(await read("etc/systemd/system/k3s.service"), /--write-kubeconfig-mode=644$/m);
});

const encrypted = { environment: { K3S_ARGS: "--write-kubeconfig-mode=644 --secrets-encryption" } };
for (const [what, was, wish, refusal] of [
  ["switched on", {}, encrypted, /it was created without.*each server would create its own key/],
  ["switched off", encrypted, {}, /Secrets, which are encrypted/],
  ["left on", encrypted, encrypted, undefined],
  [
    "left on with another spelling",
    encrypted,
    { environment: { K3S_ARGS: "--secrets-encryption=true" } },
    undefined,
  ],
] as const)
  test(`the encryption of Secrets, ${what} where K3s has data: ${refusal ? "refused, and nothing changes" : "in place"}`, async () => {
    const name = `encryption ${what}`;
    const first = await provision(name, { ...good, ...was });
    const { status, stderr, log } = await provision(name, { ...good, ...wish });
    assert.equal(status, refusal ? 2 : 0, stderr);
    if (refusal === undefined) return;
    assert.match(stderr, refusal);
    assert.deepEqual(log, first.log);
  });

test("a change that K3s does not survive is rolled back: unit, configuration, program; nothing is uninstalled", async () => {
  await provision("put back", good);
  const mode = statSync("/").mode;
  const { status, stderr, log, read, path } = await provision(
    "put back",
    changed({ start: "grep -q disable $(dirname $0)/../etc/systemd/system/k3s.service && ends || up" }),
  );
  assert.equal(status, 1, stderr);
  assert.match(
    stderr,
    /the change failed, and K3s runs as before\. K3s says: level=fatal msg="the reason"\n$/,
  );
  assert.deepEqual(uninstalls(log), []);
  assert.equal(statSync("/").mode, mode, "the root folder has another mode");
  assert.doesNotMatch(await read("etc/systemd/system/k3s.service"), /disable/);
  assert.equal(existsSync(path("var/lib/rancher/k3s/server/db/state.db")), true);
  assert.equal(existsSync(path("var/lib/k3s-lab/before")), false);
  assert.equal((await provision("put back", { ...good, mode: "check" })).stdout, "same\n");
});

test("what cannot ask gives no kubelet less room, and etcd no lower quota", async () => {
  const run = (args: string, more: Record<string, string> = {}) =>
    provision("unasked", { environment: { K3S_ARGS: args, ...more } });
  const [pods, quota] = ["--kubelet-arg=max-pods=", "--etcd-arg=quota-backend-bytes="];
  const { log } = await run(`${pods}250 ${quota}3000000000 --kubelet-arg=system-reserved=cpu=1`);
  for (const [who, args, said] of [
    [
      "UNASKED",
      `${pods}200`,
      /may end pods on server, or stop etcd for good: max-pods=200\. .*scripts\/lab up/,
    ],
    ["BY_HAND", "--v=2", /: max-pods=110\./],
    ["UNASKED", `${pods}250 ${quota}8`, /: quota-backend-bytes=8\./],
    ["UNASKED", `${pods}250 --kubelet-arg=system-reserved=cpu=2`, /: system-reserved=cpu=2\./],
  ] as const) {
    const refused = await run(args, { [who]: "yes" });
    assert.equal(refused.status, 2, args);
    assert.match(refused.stderr, said);
    assert.deepEqual(refused.log, log);
  }
  const more = await run(`${pods}300 ${quota}0`, { UNASKED: "yes" });
  assert.equal(more.status, 0, more.stderr);
  assert.equal((await run(`${pods}20`)).status, 0);
});

for (const linked of ["etc/rancher/k3s", "etc/rancher/k3s/config.yaml.d", "etc/systemd/system/k3s.service.d"])
  test(`a rollback restores the content of ${linked}, a link, and keeps the link`, async () => {
    const name = `linked ${linked}`;
    const secret = (text: string) => ({ "run/k3s-lab/secret": text });
    const { path, read } = await provision(name, { ...good, files: secret("a: 1\n") });
    await mkdir(path(linked), { recursive: true });
    await writeFile(path(`${linked}/own.conf`), "before");
    await rename(path(linked), path("elsewhere"));
    await symlink(path("elsewhere"), path(linked));
    const { status, stderr } = await provision(name, {
      ...changed({
        start: `grep -q disable ${path("etc/systemd/system/k3s.service")} && { rm ${path("elsewhere/own.conf")}; touch ${path("elsewhere/new.conf")}; ends; } || up`,
      }),
      files: secret("a: 2\n"),
    });
    assert.equal(status, 1, stderr);
    assert.equal(await read("etc/rancher/k3s/config.yaml.d/k3s-lab-secret.yaml"), "a: 1\n");
    assert.equal(await read("elsewhere/own.conf"), "before");
    assert.equal(existsSync(path("elsewhere/new.conf")), false);
    assert.equal(await readlink(path(linked)), path("elsewhere"));
    assert.equal(await read("etc/rancher/k3s/token"), "s3cr3t");
  });

test("a node that is Ready only by a status from before the change does not count as Ready", async () => {
  await provision("stale", good);
  const { status, stderr } = await provision("stale", changed({ start: "up; touch $(dirname $0)/../stale" }));
  assert.equal(status, 1);
  assert.match(stderr, /the previous installation is restored, and its node is not Ready yet/);
});

test("the next run continues, or rolls back, a change that was killed", async () => {
  for (const [name, next, flags] of [
    ["killed and right", good, /mode=644$/m],
    [
      "killed and wrong",
      changed({ start: "grep -q disable $(dirname $0)/../etc/systemd/system/k3s.service && ends || up" }),
      /mode=644$/m,
    ],
  ] as const) {
    await provision(name, good);
    const killed = await provision(
      name,
      changed({ start: "kill -9 $PPID $(cut -d ' ' -f 4 /proc/$PPID/stat)" }),
    );
    assert.notEqual(killed.status, 0);
    assert.match(await killed.read("etc/systemd/system/k3s.service"), /disable/);
    const seen = await provision(name, { ...good, mode: "observe" });
    assert.match(seen.stdout, /^state a change of it was interrupted$/m);
    const { log, read, path, status, stderr } = await provision(name, next);
    assert.equal(status, next === good ? 0 : 1, stderr);
    assert.match(await read("etc/systemd/system/k3s.service"), flags);
    assert.deepEqual(uninstalls(log), []);
    assert.equal(existsSync(path("var/lib/k3s-lab/before")), false);
  }
});

test("a change that was killed before K3s restarted restarts it, although the files are already in place", async () => {
  const name = "killed before the start";
  await provision(name, good);
  const starts = (log: readonly string[]) =>
    log.filter((line) => line.startsWith("systemctl restart")).length;
  const killed = await provision(name, changed({ installer: "kill -9 $PPID" }));
  assert.match(await killed.read("etc/systemd/system/k3s.service"), /disable/);
  assert.equal(starts(killed.log), 1);
  const { status, stderr, log } = await provision(name, changed());
  assert.equal(status, 0, stderr);
  assert.equal(starts(log), 2);
});

test("a half rolled back installation is still this lab's, and the next run continues", async () => {
  const name = "half put back";
  await provision(name, good);
  const killed = await provision(
    name,
    changed({ start: "kill -9 $PPID $(cut -d ' ' -f 4 /proc/$PPID/stat)" }),
  );
  await rm(killed.path("etc/rancher"), { recursive: true });
  const { status, stderr, read } = await provision(name, good);
  assert.equal(status, 0, stderr);
  assert.equal(await read("etc/rancher/k3s/token"), "s3cr3t");
});

test("a backup of the old installation is deleted as a whole: part of it is never restored", async () => {
  const name = "half forgotten";
  const { path } = await provision(name, good);
  // Killed while it removes what it saved.
  await writeFile(
    path("bin/rm"),
    [
      "#!/bin/sh",
      'for one; do case "$one" in */k3s-lab/before | */k3s-lab/before.old)',
      `  if [ -d "$one" ]; then /bin/rm -rf "$one${path("etc/rancher")}"; kill -9 $PPID; exit; fi ;;`,
      "esac; done",
      'exec /bin/rm "$@"',
      "",
    ].join("\n"),
  );
  await chmod(path("bin/rm"), 0o755);
  assert.notEqual((await provision(name, changed())).status, 0);
  await rm(path("bin/rm"));
  const { status, stderr, read } = await provision(name, {
    environment: { K3S_ARGS: "--bad=1" },
    start: "grep -q bad $(dirname $0)/../etc/systemd/system/k3s.service && ends || up",
  });
  assert.equal(status, 1, stderr);
  assert.match(stderr, /K3s runs as before/);
  assert.equal(await read("etc/rancher/k3s/token"), "s3cr3t");
});

test("an installation is complete when its node is Ready, even if nothing can be recorded: a later change uninstalls nothing", async () => {
  const name = "not noted";
  const full = "up; mkdir -p $(dirname $0)/../var/lib/k3s-lab/installed.new"; // as a full disk does
  const first = await provision(name, { ...good, start: full });
  assert.notEqual(first.status, 0);
  await rmdir(first.path("var/lib/k3s-lab/installed.new"));
  const { status, log, path } = await provision(
    name,
    changed({ start: "grep -q disable $(dirname $0)/../etc/systemd/system/k3s.service && ends || up" }),
  );
  assert.equal(status, 1);
  assert.deepEqual(uninstalls(log), []);
  assert.equal(existsSync(path("var/lib/rancher/k3s/server/db/state.db")), true);
});

test("a node that lost its data says so, so that others are asked whether a cluster exists", async () => {
  const { path } = await provision("data gone", good);
  assert.match((await provision("data gone", { mode: "observe" })).stdout, /^data yes$/m);
  await rm(path("var/lib/rancher"), { recursive: true });
  assert.match((await provision("data gone", { mode: "observe" })).stdout, /^data lost$/m);
});

test("an agent is not changed while no server answers", async () => {
  const agent = { NODE_ROLE: "agent", NODE_NAME: "agent", NODE_IP: "192.168.42.110" };
  await provision("alone", { hostname: "agent", environment: agent });
  const { status, stderr, log } = await provision("alone", {
    hostname: "agent",
    environment: { ...agent, K3S_ARGS: "--node-label=a=b" },
  });
  assert.equal(status, 1);
  assert.match(stderr, /no server answers it at 192\.168\.42\.110\. Nothing was touched: .*the network/);
  assert.equal(log.filter((line) => line.startsWith("install.sh")).length, 1);
});

test("a server that cannot reach the other etcd members is neither changed nor restarted", async () => {
  const several = { SERVERS: three };
  const files = { "var/lib/rancher/k3s/server/db/etcd/member/wal": "" };
  const others = three
    .split(" ")
    .slice(1)
    .map((server) => server.split("=")[1] ?? "");
  await provision("cut off", { environment: several });
  // K3s without the others ends and starts again and again: etcd answers at times.
  for (const cutOff of [{ etcdStatus: '{"header":{"member_id":"1"}}' }, { silent: others }])
    for (const mode of ["check", "install"]) {
      const { status, stderr, log } = await provision("cut off", {
        ...cutOff,
        files,
        mode,
        environment: { ...several, K3S_ARGS: "--v=2" },
      });
      assert.equal(status, 1, stderr);
      assert.match(stderr, /etcd on it has no leader: .* do not hear each other\. Nothing was touched/);
      assert.equal(log.filter((line) => line.startsWith("systemctl restart")).length, 1);
    }
});

test("a server whose etcd does not answer is restarted if most servers' machines answer", async () => {
  const several = { SERVERS: three };
  const files = { "var/lib/rancher/k3s/server/db/etcd/member/wal": "" };
  await provision("one is silent", { environment: several });
  const { stderr, log } = await provision("one is silent", {
    files,
    silent: [three.split("=").at(-1) ?? ""],
    environment: { ...several, K3S_ARGS: "--v=2" },
  });
  assert.doesNotMatch(stderr, /Nothing was touched/);
  assert.ok(log.filter((line) => line.startsWith("systemctl restart")).length > 1, stderr);
});

test("changes to K3s by hand are detected, and the next run repairs them", async () => {
  for (const [title, harm, state] of [
    ["stopped", "rm active", "K3s is stopped"],
    [
      "unit changed",
      "echo x >>etc/systemd/system/k3s.service",
      "K3s's unit, configuration or program was changed by hand",
    ],
    [
      "program changed",
      "rm usr/local/bin/k3s; printf x >usr/local/bin/k3s; chmod +x usr/local/bin/k3s",
      "K3s's unit, configuration or program was changed by hand",
    ],
    [
      "configuration changed",
      "echo x: y >>etc/rancher/k3s/config.yaml.d/k3s-lab.yaml",
      "K3s's unit, configuration or program was changed by hand",
    ],
    ["node deleted", "touch unregistered", "its node is not registered"],
    [
      "uninstalled",
      "sh usr/local/bin/k3s-uninstall.sh; rm etc/systemd/system/k3s.service usr/local/bin/k3s",
      "K3s is not installed",
    ],
  ] as const) {
    const repairing = { start: "rm -f $(dirname $0)/../unregistered; up" };
    const { path } = await provision(title, {});
    assert.match((await provision(title, { mode: "observe" })).stdout, /^state healthy$/m);
    spawnSync("sh", ["-c", harm], { cwd: path("") });
    assert.match(
      (await provision(title, { mode: "observe" })).stdout,
      new RegExp(`^state ${state}$`, "m"),
      title,
    );
    const { status, stderr } = await provision(title, repairing);
    assert.equal(status, 0, `${title}: ${stderr}`);
    const { stdout } = await provision(title, { mode: "observe" });
    assert.match(stdout, /^state healthy$/m, title);
    assert.match(stdout, /^version v1\.25\.4\+k3s1$/m);
  }
});

test("an unmounted disk for K3s's data does not count as lost data: nothing is installed without it", async () => {
  const { path, log } = await provision("unmounted", {});
  const point = path("var/lib/rancher");
  const mount = (options: string) => ({
    "etc/fstab": `# disks\nUUID=1 / ext4\nUUID=2 ${point} ext4 ${options} 0 2\n`,
  });
  assert.doesNotMatch((await provision("unmounted", { mode: "observe" })).stdout, /unmounted/);
  const noauto = await provision("unmounted", { mode: "observe", files: mount("noauto") });
  assert.doesNotMatch(noauto.stdout, /unmounted/);
  await rm(point, { recursive: true });
  const files = mount("nofail,x-systemd.device-timeout=5");
  const seen = await provision("unmounted", { mode: "observe", files });
  assert.match(seen.stdout, new RegExp(`^unmounted ${point}$`, "m"));
  const failed = await provision("unmounted", { files });
  assert.equal(failed.status, 2, failed.stderr);
  assert.match(
    failed.stderr,
    /rancher, which \S+fstab or a mount unit names, is not mounted, and K3s's data may be on it/,
  );
  assert.deepEqual(failed.log, log);
  // Of several, one is named.
  const disks = ["var", "var/lib", "var/lib/rancher"].map((one) => `UUID=1 ${path(one)} ext4 defaults\n`);
  const several = await provision("unmounted", { files: { "etc/fstab": `\n${disks.join("")}` } });
  assert.equal(several.status, 2, several.stderr);
  assert.match(several.stderr, /: \S+var, which \S+fstab or a mount unit names, is not mounted/);
  // A server may have a disk for its database alone.
  const database = path("var/lib/rancher/k3s/server/db");
  const below = { "etc/fstab": `UUID=1 ${database} ext4 defaults 0 2\nUUID=2 ${point}-2 ext4\n` };
  const { stdout } = await provision("unmounted", { mode: "observe", files: below });
  assert.deepEqual(stdout.match(/^unmounted .*/gm), [`unmounted ${database}`]);
  // A mount unit of systemd's, if it is enabled.
  const unit = "var-lib-rancher.mount";
  const systemd = (folder: string) => ({
    "etc/fstab": "",
    [`etc/systemd/system/${folder}${unit}`]: `[Mount]\nWhat=/dev/sdb\nWhere = ${point}/ \nType=ext4\n`,
  });
  const seenBy = async (folder: string) =>
    (await provision("unmounted", { mode: "observe", files: systemd(folder) })).stdout.match(
      /^unmounted .*/gm,
    );
  assert.equal(await seenBy(""), null, "disabled");
  assert.deepEqual(await seenBy("local-fs.target.wants/"), [`unmounted ${point}/`]);
});

const marks = "disk=ssd,dedicated=database:NoSchedule,full:NoExecute";
for (const [what, labels, taints, state] of [
  ["as noted", '"disk":"ssd","team":"x"', "", "healthy"],
  ["a label with another value", '"disk":"hdd"', "", "its labels or taints were changed by hand"],
  ["no label", "", "", "its labels or taints were changed by hand"],
  ["a missing taint", '"disk":"ssd"', "full", "its labels or taints were changed by hand"],
] as const)
  test(`the node's labels and taints are detected: ${what}`, async () => {
    await provision(what, {});
    const given = [
      { key: "dedicated", value: "database", effect: "NoSchedule" },
      { key: "full", effect: "NoExecute" },
    ].filter(({ key }) => key !== taints);
    const node = {
      metadata: { labels: JSON.parse(`{${labels}}`), annotations: { "k3s-lab/marks": marks } },
      spec: { taints: given },
      status: { conditions: [{ type: "Ready", status: "True", lastHeartbeatTime: "2999-01-01T00:00:00Z" }] },
    };
    const files = { "bin/curl": `#!/bin/sh\nprintf %s '${JSON.stringify(node)}'\n` };
    const { stdout } = await provision(what, { files, mode: "observe" });
    assert.match(stdout, new RegExp(`^state ${state}$`, "m"));
  });

test("a server that `start` has just started is still registering its node, and is not restarted for it", async () => {
  const { path } = await provision("registers", { mode: "start" });
  await writeFile(path("unregistered"), "");
  await writeFile(path("began"), String(Math.floor(uptime() * 1e6)));
  const { status, stderr, log } = await provision("registers", { environment: { TOKEN_FILE: "" } });
  assert.equal(status, 0, stderr);
  assert.equal(log.filter((line) => line.startsWith("systemctl restart")).length, 1, log.join("\n"));
});

test("a host whose uptime says nothing about K3s's, as in LXC, registers its node again", async () => {
  const { path } = await provision("container", { mode: "start" });
  for (const file of ["unregistered", "deleted"]) await writeFile(path(file), "");
  await writeFile(path("began"), String(Math.floor((uptime() + 1e6) * 1e6)));
  const repairing = { start: "rm -f $(dirname $0)/../unregistered; up" };
  const { status, stderr, log } = await provision("container", {
    ...repairing,
    environment: { TOKEN_FILE: "" },
  });
  assert.equal(status, 0, stderr);
  assert.doesNotMatch(log.join("\n"), /uninstall/);
  assert.equal(log.filter((line) => line.startsWith("systemctl restart")).length, 2, log.join("\n"));
});

test("the user's own configuration on a host stays, even after an uninstall", async () => {
  const theirs = {
    "etc/rancher/k3s/config.yaml": "node-label: [theirs=true]\n",
    "etc/rancher/k3s/registries.yaml": "mirrors: {}\n",
  };
  const { status, stderr, read } = await provision("theirs", {
    files: theirs,
    installer: '[ "$attempt" = 2 ]',
  });
  assert.equal(status, 0, stderr);
  for (const [file, text] of Object.entries(theirs)) assert.equal(await read(file), text);
  assert.match(await read("etc/rancher/k3s/config.yaml.d/k3s-lab.yaml"), /^token-file: /);
});

test("secret configuration is in its own file of mode 0600, and in no argument or output", async () => {
  const { status, stdout, stderr, log, read, path } = await provision("secret file", {
    files: { "run/k3s-lab/secret": "agent-token: hushhush\n" },
  });
  assert.equal(status, 0, stderr);
  const file = "etc/rancher/k3s/config.yaml.d/k3s-lab-secret.yaml";
  assert.equal(await read(file), "agent-token: hushhush\n");
  assert.equal((await stat(path(file))).mode & 0o777, 0o600);
  assert.doesNotMatch(
    [stdout, stderr, ...log, await read("etc/systemd/system/k3s.service")].join("\n"),
    /hushhush/,
  );
});

test("a node that joins an existing cluster shows its token to no other", async () => {
  const { status, stderr, read } = await provision("full token", {
    hostname: "two",
    answering: ["192.168.42.110"],
    environment: { NODE_NAME: "two", SERVERS: three, CLUSTER_CA: "c".repeat(64) },
  });
  assert.equal(status, 0, stderr);
  assert.equal(await read("etc/rancher/k3s/join"), `K10${"c".repeat(64)}::server:s3cr3t`);
  assert.equal(await read("etc/rancher/k3s/token"), "s3cr3t");
});

test("a server that lost its data starts no second cluster while the first one exists and does not answer", async () => {
  const { status, stderr, log } = await provision("no second cluster", {
    environment: { SERVERS: three, CLUSTER_CA: "c".repeat(64) },
  });
  assert.equal(status, 1);
  assert.match(stderr, /does not start a second cluster\. .*'A cluster that lost most of its servers'/);
  assert.deepEqual(log, [""]);
});

test("a node of another cluster of the lab is not moved to this one", async () => {
  await provision("other cluster", {});
  const { status, stderr, log } = await provision("other cluster", {
    files: { "var/lib/rancher/k3s/agent/server-ca.crt": "other\n" },
    environment: { CLUSTER_CA: "c".repeat(64) },
  });
  assert.equal(status, 1);
  assert.match(stderr, /belongs to another cluster than the servers: nothing was touched/);
  assert.equal(log.length, 2);
});

const versions: readonly (readonly [string, string, RegExp | undefined])[] = [
  ["the next minor release", "v1.26.1+k3s1", undefined],
  ["a later patch release", "v1.25.10+k3s1", undefined],
  ["skipping a minor release", "v1.27.0+k3s1", /would skip a minor release: upgrade to v1\.26 first/],
  ["an earlier release", "v1.25.3+k3s1", /cannot be downgraded to v1\.25\.3\+k3s1/],
];
for (const [title, version, refusal] of versions)
  test(`from v1.25.4 to ${title}: ${refusal ? "refused" : "in place"}`, async () => {
    await provision(title, {});
    const { status, stderr, log, read } = await provision(title, {
      carries: version,
      environment: { K3S_VERSION: version, BUNDLE: `k3s-${version}-x86_64-abc` },
    });
    if (refusal) {
      assert.equal(status, 2, stderr);
      assert.match(stderr, refusal);
      assert.equal(log.length, 2);
      return;
    }
    assert.equal(status, 0, stderr);
    assert.equal((await read("var/lib/k3s-lab/version")).trim(), version);
    assert.equal(log.filter((line) => line.startsWith("systemctl restart")).length, 2);
  });

test("after a failed upgrade the old release runs again", async () => {
  await provision("failed upgrade", {});
  const version = "v1.26.1+k3s1";
  const { status, path, log } = await provision("failed upgrade", {
    carries: version,
    environment: { K3S_VERSION: version, BUNDLE: "k3s-new" },
    start: "readlink $(dirname $0)/../usr/local/bin/k3s | grep -q k3s-new && ends || up",
  });
  assert.equal(status, 1);
  assert.equal(await readlink(path("usr/local/bin/k3s")), path("opt/k3s-lab/k3s"));
  assert.deepEqual(uninstalls(log), []);
});

test("another locale's language makes no difference", async () => {
  const { status, stderr } = await provision("locale", {
    environment: { LC_ALL: "de_DE.UTF-8", LANG: "de_DE.UTF-8" },
  });
  assert.equal(status, 0, stderr);
});

test("a run whose sender was interrupted ends when the next one arrives, and restores nothing later", async () => {
  await provision("left behind", good);
  const start = `echo left behind >>$(dirname $0)/../log; trap "" TERM; sleep 60`;
  const { pid } = await provision("left behind", changed({ start, isLeftBehind: true }));
  const { status, stderr, read } = await provision("left behind", { environment: { K3S_ARGS: "--v=1" } });
  assert.equal(status, 0, stderr);
  assert.throws(() => process.kill(pid ?? 0, 0), { code: "ESRCH" });
  assert.match(await read("etc/systemd/system/k3s.service"), /--v=1$/m);
});

const carriedValues = `kind: HelmChartConfig
spec:
  valuesContent: |-
    additionalArguments:
      - --first
    readinessProbe: {}
`;
const manifests = "var/lib/rancher/k3s/server/manifests";

for (const [what, files] of [
  ["beside the machine's own files", { "opt/k3s-lab/manifests/k3s-lab-traefik-config.yaml": carriedValues }],
  ["alone where the machine has none", {}],
] as const)
  test(`behind a load balancer each node has its own Traefik, ${what}; without one K3s's again`, async () => {
    const name = `balanced ${what}`;
    const TRAEFIK = "every-node";
    const { status, stderr, read } = await provision(name, { files, environment: { TRAEFIK } });
    assert.equal(status, 0, stderr);
    const { valuesContent } = (
      parse(await read(`${manifests}/k3s-lab-traefik-config.yaml`)) as HelmChartConfig
    ).spec;
    const values = parse(valuesContent) as Values;
    assert.equal(values.deployment.kind, "DaemonSet");
    // kube-proxy takes a request to a node's address for one from outside.
    assert.deepEqual(values.service.spec, { internalTrafficPolicy: "Local", externalTrafficPolicy: "Local" });
    assert.deepEqual(
      "readinessProbe" in values,
      "opt/k3s-lab/manifests/k3s-lab-traefik-config.yaml" in files,
    );
    const [first] = values.additionalArguments.filter((one) => !/serverstransport|middlewares/.test(one));
    assert.equal(first, "readinessProbe" in values ? "--first" : undefined);
    assert.ok(
      values.additionalArguments.includes(
        "--entrypoints.web.http.middlewares=kube-system-k3s-lab-retry@kubernetescrd",
      ),
    );
    // K3s v1.25's own chart brings this group alone.
    const { apiVersion, metadata } = parse(
      await read(`${manifests}/k3s-lab-traefik-retry.yaml`),
    ) as Middleware;
    assert.equal(apiVersion, "traefik.containo.us/v1alpha1");
    assert.equal(metadata.name, "k3s-lab-retry");

    const later = await provision(name, { files });
    assert.equal(later.status, 0, later.stderr);
    assert.equal(await read(`${manifests}/k3s-lab-traefik-retry.yaml`), "");
    if (!("readinessProbe" in values))
      assert.match(await read(`${manifests}/k3s-lab-traefik-config.yaml`), /valuesContent: ""/);
  });

test("a failed change leaves Traefik unchanged, with a load balancer and without", async () => {
  const start = "grep -q bad=1 $(dirname $0)/../etc/systemd/system/k3s.service && ends || up";
  for (const [name, before, after] of [
    ["first balancer", "", "every-node"],
    ["last balancer", "every-node", ""],
  ] as const) {
    const { read } = await provision(name, { environment: { TRAEFIK: before } });
    const look = () =>
      Promise.all(["retry", "config"].map((one) => read(`${manifests}/k3s-lab-traefik-${one}.yaml`)));
    const [retry, config] = await look();
    const environment = { TRAEFIK: after, K3S_ARGS: "--bad=1" };
    const { status, stderr } = await provision(name, { environment, start });
    assert.equal(status, 1);
    assert.match(stderr, /K3s runs as before/);
    const [retryNow, configNow = ""] = await look();
    assert.equal(retryNow, retry, name);
    // What K3s has read of a file it keeps when the file is gone.
    if (config) assert.equal(configNow, config);
    else assert.match(configNow, /valuesContent: ""/);
  }
});

test("a change that an older lab began without saving manifests is rolled back without them, and says so", async () => {
  const TRAEFIK = "every-node";
  const name = "older save";
  const { path } = await provision(name, { environment: { TRAEFIK } });
  await provision(name, changed({ environment: { TRAEFIK }, start: 'kill -KILL "$PPID"' }));
  await rm(path(`var/lib/k3s-lab/before${path("var/lib/rancher")}`), { recursive: true });
  const of = ({ read }: Awaited<ReturnType<typeof provision>>) =>
    Promise.all(["retry", "config"].map((one) => read(`${manifests}/k3s-lab-traefik-${one}.yaml`)));
  const start = "grep -q disable $(dirname $0)/../etc/systemd/system/k3s.service && ends || up";
  const failed = await provision(name, changed({ environment: { TRAEFIK }, start }));
  assert.equal(failed.status, 1);
  assert.match(failed.stderr, /K3s runs as before\. Traefik's settings in \S+ stay as they are, because/);
  assert.doesNotMatch(await failed.read("etc/systemd/system/k3s.service"), /disable/);
  const [retry, config] = await of(failed);
  assert.match(retry ?? "", /k3s-lab-retry/);
  assert.match(config ?? "", /DaemonSet/);
  // What this release saves is put back without a word.
  const later = await provision(name, { environment: { TRAEFIK: "", K3S_ARGS: "--disable=x" }, start });
  assert.match(later.stderr, /K3s runs as before\. K3s says/);
  assert.deepEqual(await of(later), [retry, config]);
});

interface HelmChartConfig {
  readonly spec: { readonly valuesContent: string };
}

interface Values {
  readonly additionalArguments: readonly string[];
  readonly deployment: { readonly kind: string };
  readonly service: { readonly spec: Readonly<Record<string, string>> };
}

interface Middleware {
  readonly apiVersion: string;
  readonly metadata: { readonly name: string };
}
