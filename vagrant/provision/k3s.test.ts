import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { existsSync } from "node:fs";
import { chmod, mkdir, mkdtemp, readFile, rm, stat, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { after, test } from "node:test";

const folder = await mkdtemp(join(tmpdir(), "provision-"));
after(() => rm(folder, { recursive: true }));

const original = await readFile(join(import.meta.dirname, "k3s.sh"), "utf8");
const eth1 = "3: eth1    inet 192.168.42.110/24 brd 192.168.42.255 scope global eth1";

interface Machine {
  /** What `ip -o -4 addr show` prints. Default: the address on eth1. */
  readonly addresses?: string;
  /** The interfaces besides. Default: eth1. */
  readonly links?: readonly string[];
  /** What the machine calls itself. Default: server. */
  readonly hostname?: string;
  /** Addresses of servers that answer. Default: none. */
  readonly answering?: readonly string[];
  /** Shell that install.sh runs; `$attempt` counts from 1. Default: nothing. */
  readonly installer?: string;
  /** Shell that K3s's start runs; `$attempt` counts from 1. Default: a node that gets Ready. */
  readonly start?: string;
  /** Default: a token. */
  readonly token?: string | undefined;
  /** Whether the machine carries K3s. Default: true. */
  readonly carriesK3s?: boolean;
  /** How many times slower than a usual computer the machine finds itself. Default: 1. */
  readonly slower?: number;
  /** The driver of eth1. Default: veth, which has no file. */
  readonly driver?: string;
  readonly environment?: Readonly<Record<string, string>>;
}

/** Runs k3s.sh with its absolute paths moved into a folder and the machine's programs played by scripts. */
async function provision(name: string, machine: Machine) {
  const root = join(folder, name.replaceAll(/\W+/g, "-"));
  const path = (file: string) => join(root, file);
  const put = async (file: string, text: string, mode = 0o755) => {
    await mkdir(dirname(path(file)), { recursive: true });
    await writeFile(path(file), text);
    await chmod(path(file), mode);
  };
  const script = original
    .replaceAll("/home/vagrant", path("home"))
    .replaceAll(
      /(?<![\w$])\/(opt\/k3s-lab|etc\/(?:rancher|systemd)|usr\/local\/bin|var\/lib\/rancher|run\/k3s-lab|sys\/class)/g,
      `${root}/$1`,
    )
    .replace("slower=$(slowness)", `slower=${machine.slower ?? 1}`)
    .replace("ready_within=$((180 * slower))", "ready_within=1");
  const log = `echo "$(basename "$0") $*" >>${path("log")}`;

  await put("home/keep", "", 0o644);
  if (machine.driver) {
    await put("etc/systemd/network/keep", "", 0o644);
    await mkdir(path("sys/class/net/eth1/device"), { recursive: true });
    await symlink(
      `../../../../bus/virtio/drivers/${machine.driver}`,
      path("sys/class/net/eth1/device/driver"),
    );
  }
  await put("usr/local/bin/keep", "", 0o644);
  const token = "token" in machine ? machine.token : "s3cr3t";
  if (token !== undefined) await put("run/k3s-lab/token", token, 0o600);
  const hasEth1 = machine.links?.includes("eth1") ?? true;
  await put(
    "bin/ip",
    `#!/bin/sh\ncase "$*" in *"link show eth1") exit ${hasEth1 ? 0 : 1} ;; esac\ncat <<'END'\n${machine.addresses ?? eth1}\nEND\n`,
  );
  await put(
    "bin/systemctl",
    [
      "#!/bin/sh",
      'case "$1" in',
      `is-active) test -e ${path("active")} ;;`,
      `show) cat ${path("ends")} 2>/dev/null || echo 0 ;;`,
      `restart) echo "systemctl $*" >>${path("log")}; attempt=$(grep -c ^install.sh ${path("log")}); up() { touch ${path("active")} ${path("ready")}; }; ${machine.start ?? "up"} ;;`,
      "esac",
      "",
    ].join("\n"),
  );
  await put("bin/uname", `#!/bin/sh\necho ${machine.hostname ?? "server"}\n`);
  await put("bin/journalctl", `#!/bin/sh\n${log}\necho 'level=fatal msg="the reason"'\n`);
  const node = '{"status":{"conditions":[{"type":"Ready","status":"True"}]}}';
  const answers = (machine.answering ?? []).map((ip) => `*//${ip}:6443/v1-k3s/readyz) exit 0 ;;`).join(" ");
  await put(
    "bin/curl",
    `#!/bin/sh\ncase "$1" in --config) cat >/dev/null ;; esac\ncase "$*" in ${answers} */readyz) exit 22 ;; esac\ntest -e ${path("ready")} && printf %s '${node}'\n`,
  );
  // Only root may give files to root.
  await put("bin/install", '#!/bin/sh\nexec /usr/bin/install $(echo " $* " | sed "s/ -o root / /")\n');
  if (machine.carriesK3s ?? true) {
    await put("opt/k3s-lab/k3s", '#!/bin/sh\necho "k3s version v1.25.4+k3s1 (0dc63334)"\n');
    await put("opt/k3s-lab/place.sh", `#!/bin/sh\nprintf %s "$1" >${path("placed-for")}\n`);
  }
  const installScript = machine.carriesK3s === false ? "home/k3s-install.sh" : "opt/k3s-lab/install.sh";
  const uninstaller = (file: string) =>
    `printf '#!/bin/sh\\necho ${file} >>${path("log")}\\nrm -rf ${path("etc/rancher")} ${path("active")}\\n' >${path(`usr/local/bin/${file}`)}; chmod +x ${path(`usr/local/bin/${file}`)}`;
  await put(
    installScript,
    [
      "#!/bin/sh",
      `echo "install.sh SKIP=\${INSTALL_K3S_SKIP_DOWNLOAD-} VERSION=\${INSTALL_K3S_VERSION-} EXEC=$INSTALL_K3S_EXEC" >>${path("log")}`,
      `attempt=$(grep -c ^install.sh ${path("log")})`,
      uninstaller("k3s-uninstall.sh"),
      uninstaller("k3s-agent-uninstall.sh"),
      `printf '#!/bin/sh\\necho k3s-killall.sh >>${path("log")}\\n' >${path("usr/local/bin/k3s-killall.sh")}; chmod +x ${path("usr/local/bin/k3s-killall.sh")}`,
      `mkdir -p ${path("etc/systemd/system")}; echo "$INSTALL_K3S_EXEC" >${path("etc/systemd/system/k3s.service")}; cp ${path("etc/systemd/system")}/k3s.service ${path("etc/systemd/system")}/k3s-agent.service`,
      machine.installer ?? ":",
      "",
    ].join("\n"),
  );
  const { status, stdout, stderr } = spawnSync("bash", ["-s"], {
    input: script,
    encoding: "utf8",
    timeout: 20_000,
    env: {
      PATH: `${path("bin")}:${process.env.PATH}`,
      NODE_NAME: "server",
      NODE_IP: "192.168.42.110",
      NODE_ROLE: "server",
      K3S_VERSION: "v1.25.4+k3s1",
      K3S_ARGS: "--write-kubeconfig-mode=644",
      SERVERS: "server=192.168.42.110",
      ...machine.environment,
    },
  });
  const read = (file: string) => readFile(path(file), "utf8").catch(() => "");
  return { status, stdout, stderr, path, read, log: (await read("log")).trimEnd().split("\n") };
}

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
  assert.match(await read("etc/rancher/k3s/config.yaml"), /^token-file: \/.*\/etc\/rancher\/k3s\/token$/m);
});

test("a slow machine's API server gives each request more time, and others keep the usual", async () => {
  const slow = await provision("slow", { slower: 8 });
  assert.match(
    await slow.read("etc/rancher/k3s/config.yaml"),
    /^kube-apiserver-arg: \[request-timeout=480s\]$/m,
  );
  assert.equal((await slow.read("run/k3s-lab/slowness")).trim(), "8");
  const usual = await provision("usual", {});
  assert.doesNotMatch(await usual.read("etc/rancher/k3s/config.yaml"), /kube-apiserver-arg/);
});

test("a virtual network interface has flannel's checksums computed, another is left alone", async () => {
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

test("a failed installation is tried once more after k3s-killall.sh and k3s-uninstall.sh", async () => {
  const { status, stderr, log, read } = await provision("retry", {
    installer: '[ "$attempt" = 2 ]',
  });
  assert.equal(status, 0, stderr);
  assert.deepEqual(log, [
    serverLine,
    "journalctl --no-pager --lines 30 --unit k3s",
    "k3s-killall.sh",
    "k3s-uninstall.sh",
    serverLine,
    "systemctl restart k3s",
  ]);
  assert.equal(await read("etc/rancher/k3s/token"), "s3cr3t");
});

test("an agent is retried by its own uninstaller", async () => {
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
    start: "echo 1 >$(dirname $0)/../ends",
  });
  assert.equal(status, 1);
  assert.equal(log.filter((line) => line.startsWith("install.sh")).length, 2);
  assert.match(
    stderr,
    /level=fatal msg="the reason"\nk3s\.sh on server: k3s ended, or its node was not Ready after 1 s/,
  );
});

test("a node that never gets Ready, as an agent without its server, is given up", async () => {
  const { status, stderr } = await provision("hangs", { start: ":" });
  assert.equal(status, 1);
  assert.match(stderr, /not Ready after 1 s/);
});

test("the token is shown nowhere", async () => {
  const { stdout, stderr, log } = await provision("secret", { installer: "exit 1" });
  assert.doesNotMatch([stdout, stderr, ...log].join("\n"), /s3cr3t/);
});

const refusals: readonly (readonly [title: string, machine: Machine, message: RegExp])[] = [
  [
    "an address on another interface",
    { addresses: eth1.replaceAll("eth1", "eth2") },
    /192\.168\.42\.110 is on eth2, not on eth1; .*`interface` in the stack file to eth2/,
  ],
  [
    "an address that is not where the stack file says",
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
    "a release that the machine does not carry",
    { environment: { K3S_VERSION: "v1.30.0+k3s1" } },
    /v1\.30\.0\+k3s1 was asked for and this machine carries v1\.25\.4\+k3s1/,
  ],
];

for (const [title, machine, message] of refusals)
  test(`refuses ${title} before anything is installed`, async () => {
    const { status, stderr, log } = await provision(title, machine);
    assert.equal(status, 1);
    assert.match(stderr, message);
    assert.deepEqual(log, [""]);
  });

test("a machine that carries no K3s downloads the release that was asked for", async () => {
  const { status, stderr, log } = await provision("download", { carriesK3s: false });
  assert.equal(status, 0, stderr);
  assert.match(log[0] ?? "", /^install\.sh SKIP= VERSION=v1\.25\.4\+k3s1 EXEC=server /);
});

test("a machine that has no eth1 goes by the address", async () => {
  const { status, stderr, log } = await provision("enp0s8", {
    addresses: eth1.replaceAll("eth1", "enp0s8"),
    links: ["enp0s8"],
  });
  assert.equal(status, 0, stderr);
  assert.match(log[0] ?? "", /--flannel-iface=enp0s8 /);
});

test("an interface that the stack file names is taken, eth1 or not", async () => {
  const { status, stderr, log } = await provision("named", {
    addresses: eth1.replaceAll("eth1", "eth2"),
    environment: { NODE_INTERFACE: "eth2" },
  });
  assert.equal(status, 0, stderr);
  assert.match(log[0] ?? "", /--flannel-iface=eth2 /);
});

test("a node is called as the stack file says, whatever the host calls itself", async () => {
  const { log } = await provision("other-name", { hostname: "raspberrypi" });
  assert.match(log[0] ?? "", /--write-kubeconfig-mode=644 --node-name=server$/);
});

const three = "server=192.168.42.110 two=192.168.42.111 three=192.168.42.112";
const joins: readonly (readonly [string, Machine, RegExp])[] = [
  ["the first of several servers starts the cluster", {}, / --cluster-init$/],
  [
    "another server joins the first, which is not there yet",
    { environment: { NODE_NAME: "two" }, hostname: "two" },
    / --server=https:\/\/192\.168\.42\.110:6443$/,
  ],
  [
    "the first server, made anew, joins one that answers and starts no second cluster",
    { answering: ["192.168.42.112"] },
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

test("one of several servers that fails keeps what it has: etcd knows it, and the next run goes on", async () => {
  const { status, stderr, log } = await provision("one of three", {
    start: "echo 21 >$(dirname $0)/../ends",
    environment: { SERVERS: three },
  });
  assert.equal(status, 1);
  assert.match(stderr, /the installation failed, and what is there stays: the next run goes on from it/);
  assert.deepEqual(
    log.filter((line) => line.endsWith("uninstall.sh")),
    [],
  );
});

test("a run that changes nothing does not start K3s again", async () => {
  await provision("same", {});
  const { status, stderr, log } = await provision("same", {});
  assert.equal(status, 0, stderr);
  assert.equal(log.filter((line) => line.startsWith("install.sh")).length, 2);
  assert.equal(log.filter((line) => line.startsWith("systemctl restart")).length, 1);
});

test("K3s of another cluster is left alone", async () => {
  await provision("foreign", { token: "theirs" });
  const { status, stderr, log } = await provision("foreign", { token: "ours" });
  assert.equal(status, 1);
  assert.match(stderr, /K3s of another cluster is installed here/);
  assert.equal(log.filter((line) => line.startsWith("install.sh")).length, 1);
});

test("a later run keeps the token that the machine has", async () => {
  const machine = { environment: { K3S_ARGS: "--disable=traefik" } };
  await provision("again", {});
  const { status, stderr, log, read } = await provision("again", { ...machine, token: undefined });
  assert.equal(status, 0, stderr);
  assert.equal(await read("etc/rancher/k3s/token"), "s3cr3t");
  assert.match(log.at(-2) ?? "", /--disable=traefik$/);
});
