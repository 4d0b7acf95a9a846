import { readFile } from "node:fs/promises";
import { delimiter, join } from "node:path";
import pWaitFor from "p-wait-for";
import { LabError } from "../../stacks/lib/errors.ts";
import { exists } from "../../stacks/lib/files.ts";
import type { Progress } from "../../stacks/lib/progress.ts";
import { lastLines, type Run, run as runHere } from "./commands.ts";
import { isRoot, proxyVariables, rootPrefix, shown } from "./privilege.ts";

/** What `ensurePackages` sees of a computer; tests pass their own. */
export interface PackageHost {
  readonly run: Run;
  readonly root: boolean;
  /** Whether systemd runs services here. */
  readonly systemd: boolean;
  /** Whether a file or folder is there. */
  readonly exists: (path: string) => Promise<boolean>;
  /** Whether a program is on PATH or in a folder for root's. */
  readonly hasProgram: (name: string) => Promise<boolean>;
  /** What /etc/os-release holds. */
  readonly osRelease: string;
}

/** Whether systemd runs services on this computer. */
export const hasSystemd = (): Promise<boolean> => exists("/run/systemd/system");

const thisHost = async (run: Run = runHere): Promise<PackageHost> => ({
  run,
  root: isRoot(),
  systemd: await hasSystemd(),
  exists,
  hasProgram,
  osRelease: await readFile("/etc/os-release", "utf8").catch(() => ""),
});

async function hasProgram(name: string): Promise<boolean> {
  const folders = [
    ...(process.env.PATH ?? "").split(delimiter),
    ...["/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/libexec"],
  ];
  for (const folder of folders) if (folder !== "" && (await exists(join(folder, name)))) return true;
  return false;
}

/** Milliseconds that another apt may hold apt's lists; for dpkg's lock see apt.sh. */
const locksWithin = 300_000;

type Family = "fedora" | "arch" | "suse";

/** How a Debian package is told where it came from elsewhere, and what other distributions call it. */
interface Known {
  /** Programs that are there with it; `a|b` where one of them will do. */
  readonly programs?: readonly string[];
  /** A file that is there with it, where it brings no program. */
  readonly file?: string;
  /** Default: the same name. */
  readonly names?: Partial<Readonly<Record<Family, string>>>;
}

const known: Readonly<Record<string, Known>> = {
  "docker.io": {
    programs: ["docker", "dockerd"],
    names: { fedora: "moby-engine", arch: "docker", suse: "docker" },
  },
  vagrant: { programs: ["vagrant"] },
  "vagrant-libvirt": {},
  "libvirt-daemon-system": {
    programs: ["libvirtd|virtqemud"],
    names: { fedora: "libvirt-daemon-kvm", arch: "libvirt", suse: "libvirt-daemon-qemu" },
  },
  "libvirt-clients": {
    programs: ["virsh"],
    names: { fedora: "libvirt-client", arch: "libvirt", suse: "libvirt-client" },
  },
  "dnsmasq-base": {
    programs: ["dnsmasq"],
    names: { fedora: "dnsmasq", arch: "dnsmasq", suse: "dnsmasq" },
  },
  iptables: { programs: ["iptables"], names: { fedora: "iptables-nft" } },
  "qemu-utils": {
    programs: ["qemu-img"],
    names: { fedora: "qemu-img", arch: "qemu-img", suse: "qemu-img" },
  },
  "qemu-system-x86": {
    programs: ["qemu-system-x86_64|qemu-kvm"],
    names: { fedora: "qemu-kvm", suse: "qemu-x86" },
  },
  "qemu-system-arm": {
    programs: ["qemu-system-aarch64|qemu-kvm"],
    names: { fedora: "qemu-kvm", arch: "qemu-system-aarch64", suse: "qemu-arm" },
  },
  "openssh-client": {
    programs: ["ssh", "ssh-keygen"],
    names: { fedora: "openssh-clients", arch: "openssh", suse: "openssh-clients" },
  },
  iproute2: { programs: ["ip"], names: { fedora: "iproute" } },
  mmdebstrap: { programs: ["mmdebstrap"] },
  uidmap: {
    programs: ["newuidmap", "newgidmap"],
    names: { fedora: "shadow-utils", arch: "shadow", suse: "shadow" },
  },
  "debian-archive-keyring": {
    file: "/usr/share/keyrings/debian-archive-keyring.gpg",
    names: { fedora: "debian-keyring" },
  },
  e2fsprogs: { programs: ["mke2fs"] },
  zstd: { programs: ["zstd"] },
  shellcheck: { programs: ["shellcheck"], names: { fedora: "ShellCheck", suse: "ShellCheck" } },
  gcc: { programs: ["gcc"] },
  "libc6-dev": {
    file: "/usr/include/stdlib.h",
    names: { fedora: "glibc-devel", arch: "glibc", suse: "glibc-devel" },
  },
};

/**
 * Installs what is missing of these, named as Debian's packages are, with a line of progress for each step. What came
 * from elsewhere, such as Docker's own packages, is as good: programs are looked for. apt removes no package for it.
 *
 * Root does it, or sudo where that asks no password. Where no systemd runs, packages start no services.
 *
 * @throws LabError with the exact command where root is out of reach, with the programs and this distribution's names for
 * their packages where there is no apt, and with apt's last lines where it fails.
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
  if (!(await here.hasProgram("apt-get"))) throw new LabError(adviceWithoutApt(missing, here.osRelease));
  const install = installArguments(missing);
  const prefix = await rootPrefix(run, root);
  if (prefix === undefined)
    throw new LabError(
      `These Debian packages are missing: ${missing.join(", ")}. Installing them needs root, and sudo asks for a password here. Run this, then try again:\n  ${installCommand(missing)}`,
    );

  const script = join(import.meta.dirname, "apt.sh");
  // sudo drops the proxies, which apt follows; they may hold a password and go by their names.
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
    // There are no lists of packages yet, or old ones that name files which a mirror no longer has.
    if (result.exitCode !== 0) {
      progress("updating the lists of Debian packages");
      // apt waits for dpkg's lock, and not for that of its lists.
      const isUpdated = async () => !/Could not get lock/.test((await apt("update")).stderr);
      await pWaitFor(isUpdated, { interval: 2000, timeout: locksWithin }).catch(() => undefined);
      result = await apt(...install);
    }
    if (result.exitCode !== 0) {
      const said = lastLines(result.stderr || result.stdout);
      const vagrant = /Unable to locate package vagrant\b/.test(said)
        ? "\nThis distribution has no Vagrant: take it from https://developer.hashicorp.com/vagrant/install."
        : "";
      throw new LabError(
        `The packages ${missing.join(", ")} could not be installed:\n${said}${vagrant}\nSee what this says, then try again:\n  sudo ${shown(["apt-get", ...install])}`,
      );
    }
  } finally {
    if (!systemd) await apt();
  }
}

/** What is already there is not to be taken away for what is missing: then apt fails and says what is in the way. */
const installArguments = (names: readonly string[]): string[] => [
  ...["install", "-y", "--no-install-recommends", "--no-remove"],
  ...names,
];

/** What a person types to install Debian packages as the lab would. */
export const installCommand = (names: readonly string[]): string =>
  `sudo apt-get update && sudo ${shown(["apt-get", ...installArguments(names)])}`;

/** What a person does where there is no apt: which programs are missing, and what brings them there. */
export function adviceWithoutApt(missing: readonly string[], osRelease: string): string {
  const programs = missing.flatMap((name) => known[name]?.programs ?? [known[name]?.file ?? name]);
  const shownPrograms = programs.map((program) => program.replaceAll("|", " or ")).join(", ");
  const ids = [...osRelease.matchAll(/^ID(?:_LIKE)?=["']?([^"'\n]*)/gm)].map(([, ids = ""]) => ids).join(" ");
  const families: Readonly<Record<Family, readonly [ids: RegExp, install: string]>> = {
    fedora: [/\b(fedora|rhel|centos)\b/, "sudo dnf install"],
    arch: [/\barch\b/, "sudo pacman -S --needed"],
    suse: [/suse\b/, "sudo zypper install"],
  };
  const what = `Automatic installation needs Debian or Ubuntu (apt not found); missing: ${shownPrograms}.`;
  for (const [family, [pattern, install]] of Object.entries(families))
    if (pattern.test(ids)) {
      const names = new Set(missing.map((name) => known[name]?.names?.[family as Family] ?? name));
      return `${what} Install them, then try again:\n  ${install} ${[...names].join(" ")}`;
    }
  return `${what} Install them with this computer's package manager, then try again; Debian has them in ${missing.join(", ")}.`;
}

/** What a person does to install what is missing, however this computer installs. */
export async function installAdvice(missing: readonly string[]): Promise<string> {
  if (await hasProgram("apt-get")) return installCommand(missing);
  const advice = adviceWithoutApt(missing, (await thisHost()).osRelease);
  return advice.split("\n  ")[1] ?? advice;
}

/**
 * Which of these, named as Debian's packages are, are not there: neither the package nor the programs that it brings.
 * @throws LabError where dpkg cannot tell.
 */
export const missingPackages = async (names: readonly string[], run: Run = runHere): Promise<string[]> =>
  missingFrom(names, await thisHost(run));

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
  // 1 is for names that it does not know (dpkg-query(1)).
  if (exitCode !== 0 && exitCode !== 1)
    throw new LabError(
      `dpkg cannot tell what is installed: ${lastLines(stderr, 3)}. See what \`sudo dpkg --audit\` says, then try again.`,
    );
  const lines = stdout.split("\n").filter((line) => line.endsWith(" installed"));
  return new Set(lines.map((line) => line.split(" ")[0] ?? ""));
}

async function isThere(name: string, { run, exists, hasProgram }: PackageHost): Promise<boolean> {
  if (name === "vagrant-libvirt") {
    if (!(await hasProgram("vagrant"))) return false;
    return (await run(["vagrant", "plugin", "list"], { timeout: 60_000 })).stdout.includes("vagrant-libvirt");
  }
  const { programs = [], file } = known[name] ?? {};
  if (file !== undefined) return await exists(file);
  for (const program of programs) {
    const found = await Promise.all(program.split("|").map(hasProgram));
    if (!found.some(Boolean)) return false;
  }
  return programs.length > 0;
}

/** What apt is at; empty where a person would not care. */
function describe(line: string): string {
  const [, fetched] = /^Get:\d+ \S+ \S+ \S+ ([a-z0-9][\w.+-]*) /.exec(line) ?? [];
  if (fetched) return `downloading ${fetched}`;
  const [, step = "", name = ""] = /^(Unpacking|Setting up) (\S+)/.exec(line) ?? [];
  return name === "" ? "" : `${step.toLowerCase()} ${name}`;
}
