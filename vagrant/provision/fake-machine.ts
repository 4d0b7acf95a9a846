import { spawn, spawnSync } from "node:child_process";
import { chmod, mkdir, mkdtemp, readFile, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { after } from "node:test";

const folder = await mkdtemp(join(tmpdir(), "provision-"));
after(() => rm(folder, { recursive: true }));

const original = (
  await Promise.all(["common.sh", "k3s.sh"].map((file) => readFile(join(import.meta.dirname, file), "utf8")))
).join("");
/** What `ip` says of a machine with the address of the server. */
export const eth1 = "3: eth1    inet 192.168.42.110/24 brd 192.168.42.255 scope global eth1";

/** A machine whose programs are played by scripts. */
export interface Machine {
  /** What `ip -o -4 addr show` prints. Default: the address on eth1. */
  readonly addresses?: string;
  /** The interfaces besides. Default: eth1. */
  readonly links?: readonly string[];
  /** What the machine calls itself. Default: server. */
  readonly hostname?: string;
  /** Addresses of servers that answer. Default: none. */
  readonly answering?: readonly string[];
  /** What etcd on the machine says of itself; it agrees to nothing. Default: it does not run. */
  readonly etcdStatus?: string;
  /** Whether a kubelet listens on the machine before K3s does. Default: false. */
  readonly hasKubelet?: boolean;
  /** Addresses of servers whose machines do not answer at all. Default: none. */
  readonly silent?: readonly string[];
  /** Shell that install.sh runs; `$attempt` counts from 1. Default: nothing. */
  readonly installer?: string;
  /** Shell that K3s's start runs; `$attempt` counts from 1. Default: a node that gets Ready. */
  readonly start?: string;
  /** Default: a token. */
  readonly token?: string | undefined;
  /** Whether the machine carries K3s. Default: true. */
  readonly carriesK3s?: boolean;
  /** The release that the machine carries. Default: v1.25.4+k3s1. */
  readonly carries?: string;
  /** `k3s.sh`'s mode. Default: none, which is install. */
  readonly mode?: string;
  /** Files of the machine, by path without the first slash; programs of its own in bin. Default: none. */
  readonly files?: Readonly<Record<string, string>>;
  /** How many times slower than a usual computer the machine finds itself. Default: 1. */
  readonly slower?: number;
  /** The driver of eth1. Default: veth, which has no file. */
  readonly driver?: string;
  /** Whether the script goes on when nobody waits for it any more, from where `start` logs "left behind". Default: false. */
  readonly isLeftBehind?: boolean;
  readonly environment?: Readonly<Record<string, string>>;
  /** Runs something else in place of k3s.sh. */
  readonly run?: (k3s: FakeRun) => Promise<{ status: number | null; stdout: string; stderr: string }>;
}

export interface FakeRun {
  readonly root: string;
  readonly env: Readonly<Record<string, string>>;
  /** The text with absolute paths moved into the folder. */
  readonly moved: (text: string) => string;
  /** k3s.sh and common.sh, moved. */
  readonly script: string;
}

/** Runs k3s.sh with its absolute paths moved into a folder and the machine's programs played by scripts. */
export async function provision(name: string, machine: Machine) {
  const root = join(folder, name.replaceAll(/\W+/g, "-"));
  const path = (file: string) => join(root, file);
  const put = async (file: string, text: string, mode = 0o755) => {
    await mkdir(dirname(path(file)), { recursive: true });
    // A program is known by its time: what is the same stays the same.
    if (text !== (await readFile(path(file), "utf8").catch(() => undefined)))
      await writeFile(path(file), text);
    await chmod(path(file), mode);
  };
  const moved = (text: string) =>
    text
      .replaceAll("/home/vagrant", path("home"))
      .replaceAll(
        /(?<![\w$])\/(opt\/k3s-lab|etc\/(?:rancher|systemd|fstab)|usr\/local\/bin|var\/lib\/rancher|var\/lib\/kubelet|var\/lib\/k3s-lab|run\/k3s-lab|sys\/class)/g,
        `${root}/$1`,
      );
  const script = moved(original)
    .replace("slower=$(slowness)", `slower=${machine.slower ?? 1}`)
    .replace("ready_within=$((180 * slower))", "ready_within=1")
    // What is to come up in no time may take its time on a computer that is busy.
    .replace('timeout "$ready_within" systemctl', "timeout 60 systemctl")
    .replace("until_true $((30 * slower))", "until_true 1")
    .replace("until_true 60 check_quorum", "until_true 1 check_quorum");

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
      'if [ "$1" = --no-block ]; then shift; fi', // Ansible's order
      'case "$1" in',
      "is-enabled) echo enabled ;;",
      "show) case $3 in",
      `  NRestarts) cat ${path("ends")} 2>/dev/null || echo 0 ;;`,
      // One that has just started registers its node in the next moment.
      `  ExecMainStart*) cat ${path("began")} 2>/dev/null || echo 0; [ ! -e ${path("began")} ] || [ -e ${path("deleted")} ] || rm ${path("unregistered")} ;;`,
      // What Ansible asks.
      "  '') echo LoadState=loaded; echo ActiveState=active ;;",
      `  SubState) test -e ${path("active")} && echo running || echo dead ;;`,
      "  esac ;;",
      `reset-failed) rm -f ${path("ends")} ;;`,
      `restart) echo "systemctl $*" >>${path("log")}; attempt=$(grep -c ^install.sh ${path("log")}); rm -f ${path("ready")}`,
      `  has_data() { mkdir -p ${path("var/lib/rancher/k3s/server/db")} ${path("var/lib/rancher/k3s/server/tls")} ${path("var/lib/rancher/k3s/agent")}; touch ${path("var/lib/rancher/k3s/server/db/state.db")} ${path("var/lib/rancher/k3s/agent/client-kubelet.crt")}; echo ca >${path("var/lib/rancher/k3s/server/tls/server-ca.crt")}; }`,
      `  up() { has_data; touch ${path("active")} ${path("ready")}; }`,
      `  ends() { has_data; rm -f ${path("active")}; echo 21 >${path("ends")}; }`,
      `  ${machine.start ?? "up"} ;;`,
      "esac",
      "",
    ].join("\n"),
  );
  await put("bin/uname", `#!/bin/sh\necho ${machine.hostname ?? "server"}\n`);
  const asked = `echo "journalctl $*" | sed 's/ --since=.*//' >>${path("log")}`;
  await put("bin/journalctl", `#!/bin/sh\n${asked}\necho 'level=fatal msg="the reason"'\n`);
  const node = (time: string) =>
    `{"status":{"conditions":[{"type":"Ready","status":"True","lastHeartbeatTime":"${time}"}]}}`;
  const answers = (machine.answering ?? [])
    .map((ip) => `*//${ip}:6443/readyz) printf 401; exit ;;`)
    .join(" ");
  await put(
    "bin/curl",
    [
      "#!/bin/sh",
      // The machine's proxy leads out of the network, not to the machine itself.
      `case "$https_proxy $*" in http*--noproxy*) ;; http*) exit 56 ;; esac`,
      ...(machine.etcdStatus
        ? [`case "$*" in */v3/maintenance/status) printf '%s' '${machine.etcdStatus}'; exit ;; esac`]
        : []),
      `case "$*" in ${(machine.silent ?? []).map((ip) => `*https://${ip}:2380) exit 28 ;; `).join("")}*:2380) exit 7 ;; esac`,
      `case "$*" in *:10250*) exit ${machine.hasKubelet ? 0 : 7} ;; esac`,
      `case "$*" in ${answers} */readyz) printf 503; exit ;; */v3/*) exit 22 ;; esac`,
      `if [ -e ${path("unregistered")} ]; then printf '{"kind":"Status","code":404}'; exit; fi`,
      `if [ -e ${path("stale")} ]; then printf %s '${node("2001-01-01T00:00:00Z")}'; exit; fi`,
      `test -e ${path("ready")} && printf %s '${node("2999-01-01T00:00:00Z")}'`,
      "",
    ].join("\n"),
  );
  // Only root may give files to root.
  await put("bin/install", '#!/bin/sh\nexec /usr/bin/install $(echo " $* " | sed "s/ -o root / /")\n');
  if (machine.carriesK3s ?? true) {
    const folders = [
      "opt/k3s-lab",
      ...(machine.environment?.BUNDLE ? [`opt/k3s-lab/${machine.environment.BUNDLE}`] : []),
    ];
    for (const assets of folders) {
      await put(
        `${assets}/k3s`,
        [
          "#!/bin/sh",
          `if [ "$1" = --version ]; then echo "k3s version ${machine.carries ?? "v1.25.4+k3s1"} (0dc63334)"; exit; fi`,
          // K3s's own words, and where --help comes first it starts nothing.
          '[ "$2" = --help ] || exit 9',
          `case "$*" in *--tls-sans*) echo 'time="now" level=fatal msg="flag provided but not defined: -tls-sans"' >&2; exit 1 ;; esac`,
          "",
        ].join("\n"),
      );
      await put(`${assets}/place.sh`, `#!/bin/sh\nprintf %s "$1" >${path("placed-for")}\n`);
    }
  }
  const installScript = machine.carriesK3s === false ? "home/k3s-install.sh" : "opt/k3s-lab/install.sh";
  const uninstaller = (file: string) =>
    `printf '#!/bin/sh\\necho ${file} >>${path("log")}\\nrm -rf ${path("etc/rancher")} ${path("active")} ${path("var/lib/rancher")}\\n' >${path(`usr/local/bin/${file}`)}; chmod +x ${path(`usr/local/bin/${file}`)}`;
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
      // What is downloaded.
      `[ -e ${path("usr/local/bin/k3s")} ] || printf '#!/bin/sh\\necho "k3s version v1.25.4+k3s1 (x)"\\n' | /usr/bin/install -m 0755 /dev/stdin ${path("usr/local/bin/k3s")}`,
      machine.installer ?? ":",
      "",
    ].join("\n"),
  );
  if (machine.environment?.BUNDLE)
    await put(
      `opt/k3s-lab/${machine.environment.BUNDLE}/install.sh`,
      await readFile(path(installScript), "utf8"),
    );
  for (const [file, text] of Object.entries(machine.files ?? {}))
    await put(file, text, file.startsWith("bin/") ? 0o755 : 0o644);
  const options = {
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
  };
  const args = ["-s", ...(machine.mode ? [machine.mode] : [])];
  let pid: number | undefined;
  if (machine.isLeftBehind) {
    const left = spawn("bash", args, { ...options, detached: true, stdio: ["pipe", "ignore", "ignore"] });
    left.stdin.end(script);
    pid = left.pid;
    left.unref();
    while (!(await readFile(path("log"), "utf8").catch(() => "")).includes("left behind"))
      await new Promise((resolve) => setTimeout(resolve, 50));
  }
  const { status, stdout, stderr } = machine.isLeftBehind
    ? { status: null, stdout: "", stderr: "" }
    : machine.run
      ? await machine.run({ root, env: options.env, moved, script })
      : spawnSync("bash", args, { ...options, input: script, encoding: "utf8", timeout: 120_000 });
  const read = (file: string) => readFile(path(file), "utf8").catch(() => "");
  return { status, stdout, stderr, pid, path, read, log: (await read("log")).trimEnd().split("\n") };
}
