import { readFile } from "node:fs/promises";
import { delimiter, join } from "node:path";
import pWaitFor from "p-wait-for";
import { LabError } from "../../stacks/lib/errors.ts";
import { exists } from "../../stacks/lib/files.ts";
import type { Progress } from "../../stacks/lib/progress.ts";
import { lastLines, type Run, run as runHere } from "./commands.ts";
import { isRoot, proxyVariables, rootPrefix, shown } from "./privilege.ts";

export interface PackageHost {
  readonly run: Run;
  readonly root: boolean;
  readonly systemd: boolean;
  /** Whether a file exists, or a program is on PATH or in a folder for root's programs. */
  readonly has: (name: string) => Promise<boolean>;
  readonly osRelease: string;
}

export const hasSystemd = (): Promise<boolean> => exists("/run/systemd/system");

const thisHost = async (): Promise<PackageHost> => ({
  run: runHere,
  root: isRoot(),
  systemd: await hasSystemd(),
  has,
  osRelease: await readFile("/etc/os-release", "utf8").catch(() => ""),
});

async function has(name: string): Promise<boolean> {
  if (name.startsWith("/")) return await exists(name);
  const own = (process.env.PATH ?? "").split(delimiter).filter(Boolean);
  for (const folder of [...own, "/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/libexec"])
    if (await exists(join(folder, name))) return true;
  return false;
}

/** Milliseconds to wait while another apt holds the lock of apt's lists; for dpkg's lock see apt.sh. */
const locksWithin = 300_000;

/**
 * By which programs or file a Debian package counts as installed if it came from elsewhere, `a|b` if either will do.
 * Then its names in Fedora, Arch and SUSE; "": the same.
 */
const known: Readonly<Record<string, readonly [has: string, fedora?: string, arch?: string, suse?: string]>> =
  {
    "docker.io": ["docker dockerd", "moby-engine", "docker", "docker"],
    vagrant: ["vagrant"],
    "libvirt-daemon-system": ["libvirtd|virtqemud", "libvirt-daemon-kvm", "libvirt", "libvirt-daemon-qemu"],
    "libvirt-clients": ["virsh", "libvirt-client", "libvirt", "libvirt-client"],
    "dnsmasq-base": ["dnsmasq", "dnsmasq", "dnsmasq", "dnsmasq"],
    iptables: ["iptables", "iptables-nft"],
    "qemu-utils": ["qemu-img", "qemu-img", "qemu-img", "qemu-img"],
    "qemu-system-x86": ["qemu-system-x86_64|qemu-kvm", "qemu-kvm", "", "qemu-x86"],
    "qemu-system-arm": ["qemu-system-aarch64|qemu-kvm", "qemu-kvm", "qemu-system-aarch64", "qemu-arm"],
    "openssh-client": ["ssh ssh-keygen", "openssh-clients", "openssh", "openssh-clients"],
    iproute2: ["ip", "iproute"],
    "ansible-core": ["ansible-playbook"],
    mmdebstrap: ["mmdebstrap"],
    uidmap: ["newuidmap newgidmap", "shadow-utils", "shadow", "shadow"],
    "debian-archive-keyring": ["/usr/share/keyrings/debian-archive-keyring.gpg", "debian-keyring"],
    e2fsprogs: ["mke2fs"],
    zstd: ["zstd"],
    curl: ["curl"],
    git: ["git"],
    openssl: ["openssl"],
    perl: ["perl"],
    procps: ["ps pgrep", "procps-ng", "procps-ng", "procps"],
    shellcheck: ["shellcheck", "ShellCheck", "", "ShellCheck"],
    gcc: ["gcc"],
    "libc6-dev": ["/usr/include/stdlib.h", "glibc-devel", "glibc", "glibc-devel"],
  };

/**
 * Installs the missing ones of these Debian packages; programs from elsewhere, such as Docker's own packages, count as
 * installed. apt removes no package for this, and without systemd, packages start no services.
 * @throws LabError with the exact command without root privileges, with this distribution's names if there is no apt, and
 * with apt's last lines if it fails.
 */
export async function ensurePackages(
  names: readonly string[],
  progress: Progress,
  host?: PackageHost,
): Promise<void> {
  const here = host ?? (await thisHost());
  const { run, root, systemd } = here;
  const missing = await missingFrom(names, here);
  if (missing.length === 0) return;
  if (!(await here.has("apt-get"))) throw new LabError(adviceWithoutApt(missing, here.osRelease));
  const install = installArguments(missing);
  const prefix = await rootPrefix(run, root);
  if (prefix === undefined)
    throw new LabError(
      `These Debian packages are missing: ${missing.join(", ")}. Installing them needs root, and sudo asks for a password here. Run this, then try again:\n  ${installCommand(missing)}`,
    );

  const script = join(import.meta.dirname, "apt.sh");
  // sudo drops the proxies, which apt follows; they may hold a password, so only their names are passed.
  const proxies = proxyVariables.filter((name) => process.env[name]);
  const kept = proxies.length ? [`--preserve-env=${proxies.join(",")}`] : [];
  const asRoot = prefix.length ? [...prefix, ...kept] : [];
  const apt = (...args: readonly string[]) =>
    run([...asRoot, "sh", script, systemd ? "services" : "no-services", ...args], {
      onLine: (line) => {
        const step = describe(line);
        if (step) progress(step);
      },
    });
  progress(`installing Debian packages: ${missing.join(" ")}`);
  try {
    let result = await apt(...install);
    // The package lists are missing, or name files that a mirror no longer has.
    if (result.exitCode !== 0) {
      progress("updating the lists of Debian packages");
      // apt waits for dpkg's lock, but not for that of its lists.
      const isUpdated = async () => !/Could not get lock/.test((await apt("update")).stderr);
      await pWaitFor(isUpdated, { interval: 2000, timeout: locksWithin }).catch(() => undefined);
      result = await apt(...install);
    }
    if (result.exitCode !== 0) {
      const said = lastLines(result.stderr || result.stdout);
      const vagrant = /Unable to locate package vagrant\b/.test(said)
        ? "\nThis distribution has no Vagrant: install it from https://developer.hashicorp.com/vagrant/install."
        : "";
      throw new LabError(
        `The packages ${missing.join(", ")} could not be installed:\n${said}${vagrant}\nFix the cause, then try again:\n  sudo ${shown(["apt-get", ...install])}`,
      );
    }
  } finally {
    if (!systemd) await apt();
  }
}

/** Never remove installed packages: apt then fails and names the conflict. */
const installArguments = (names: readonly string[]): string[] => [
  ...["install", "-y", "--no-install-recommends", "--no-remove"],
  ...names,
];

const installCommand = (names: readonly string[]): string =>
  `sudo apt-get update && sudo ${shown(["apt-get", ...installArguments(names)])}`;

/** Families of distributions in that table's order: their ids in /etc/os-release, and the install command. */
const families: readonly (readonly [words: RegExp, install: string])[] = [
  [/\b(fedora|rhel|centos)\b/, "sudo dnf install"],
  [/\barch\b/, "sudo pacman -S --needed"],
  [/suse\b/, "sudo zypper install"],
];

/** The install command without apt; undefined for an unknown distribution. */
function commandWithoutApt(missing: readonly string[], osRelease: string): string | undefined {
  const ids = [...osRelease.matchAll(/^ID(?:_LIKE)?=["']?([^"'\n]*)/gm)].map(([, ids = ""]) => ids).join(" ");
  const index = families.findIndex(([words]) => words.test(ids));
  const [, install] = families[index] ?? [];
  return install && [install, ...new Set(missing.map((name) => known[name]?.[index + 1] || name))].join(" ");
}

/** Advice without apt: the missing programs, and how to install them. */
export function adviceWithoutApt(missing: readonly string[], osRelease: string): string {
  const programs = missing.flatMap((name) => (known[name]?.[0] ?? name).split(" "));
  const shownPrograms = programs.map((program) => program.replaceAll("|", " or ")).join(", ");
  const what = `Automatic installation needs Debian or Ubuntu (apt not found); missing: ${shownPrograms}.`;
  const command = commandWithoutApt(missing, osRelease);
  return command === undefined
    ? `${what} Install them with this computer's package manager, then try again; Debian has them in ${missing.join(", ")}.`
    : `${what} Install them, then try again:\n  ${command}`;
}

/** Advice on installing what is missing on this computer. */
export async function installAdvice(missing: readonly string[]): Promise<string> {
  if (await has("apt-get")) return installCommand(missing);
  const { osRelease } = await thisHost();
  return commandWithoutApt(missing, osRelease) ?? adviceWithoutApt(missing, osRelease);
}

/**
 * Which of these Debian packages are missing: neither the package nor its programs exist.
 * @throws LabError if dpkg fails.
 */
export const missingPackages = async (names: readonly string[]): Promise<string[]> =>
  missingFrom(names, await thisHost());

async function missingFrom(names: readonly string[], host: PackageHost): Promise<string[]> {
  if (names.length === 0) return [];
  const installed = await installedPackages(names, host.run);
  const missing: string[] = [];
  for (const name of names) if (!installed.has(name) && !(await isThere(name, host))) missing.push(name);
  return missing;
}

async function installedPackages(names: readonly string[], run: Run): Promise<ReadonlySet<string>> {
  const { exitCode, stdout, stderr, ended } = await run(
    [
      "dpkg-query",
      "--show",
      // biome-ignore lint/suspicious/noTemplateCurlyInString: dpkg's own placeholders
      "--showformat=${Package} ${db:Status-Status}\n",
      ...names,
    ],
    { timeout: 30_000 },
  );
  if (ended === "missing") return new Set();
  // 1 means unknown names (dpkg-query(1)).
  if (exitCode !== 0 && exitCode !== 1)
    throw new LabError(
      `dpkg did not say what is installed: ${lastLines(stderr, 3)}. See what \`sudo dpkg --audit\` says, then try again.`,
    );
  const lines = stdout.split("\n").filter((line) => line.endsWith(" installed"));
  return new Set(lines.map((line) => line.split(" ")[0] ?? ""));
}

async function isThere(name: string, { run, has }: PackageHost): Promise<boolean> {
  if (name === "vagrant-libvirt") {
    if (!(await has("vagrant"))) return false;
    return (await run(["vagrant", "plugin", "list"], { timeout: 60_000 })).stdout.includes(name);
  }
  for (const words of known[name]?.[0].split(" ") ?? [""]) {
    const found = await Promise.all(words.split("|").map((one) => one !== "" && has(one)));
    if (!found.includes(true)) return false;
  }
  return true;
}

function describe(line: string): string {
  const [, fetched] = /^Get:\d+ \S+ \S+ \S+ ([a-z0-9][\w.+-]*) /.exec(line) ?? [];
  if (fetched) return `downloading ${fetched}`;
  const [, step = "", name = ""] = /^(Unpacking|Setting up) (\S+)/.exec(line) ?? [];
  return name === "" ? "" : `${step.toLowerCase()} ${name}`;
}
