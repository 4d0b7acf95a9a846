import { glob } from "node:fs/promises";
import { LabError } from "../errors.ts";
import { exists } from "../files.ts";
import type { Progress } from "../progress.ts";
import { lastLines, type Run, run as runHere } from "./commands.ts";
import { isRoot, rootPrefix, shown } from "./privilege.ts";

/** What `ensurePackages` sees of a computer; tests pass their own. */
export interface PackageHost {
  readonly run: Run;
  readonly root: boolean;
  /** Whether systemd runs services here. */
  readonly systemd: boolean;
  /** Whether apt has lists of packages at all. */
  readonly hasLists: () => Promise<boolean>;
  readonly exists: (path: string) => Promise<boolean>;
}

/** Whether systemd runs services on this computer. */
export const hasSystemd = (): Promise<boolean> => exists("/run/systemd/system");

async function thisHost(): Promise<PackageHost> {
  const hasLists = async () => {
    for await (const _ of glob("/var/lib/apt/lists/*_Packages*")) return true;
    return false;
  };
  return { run: runHere, root: isRoot(), systemd: await hasSystemd(), hasLists, exists };
}

/** dpkg asks this program whether a package may start its services; 101 is no (invoke-rc.d(8)). */
const policyFile = "/usr/sbin/policy-rc.d";
const policy = "#!/bin/sh\n# k3s-lab: no service is started while it installs packages\nexit 101\n";

const aptOptions = ["-o", "DPkg::Lock::Timeout=300", "-q"];

/**
 * Installs the Debian packages among these that are missing, with a line of progress for each step.
 *
 * Root does it, or sudo where that asks no password. Where no systemd runs, packages start no services.
 *
 * @throws LabError with the exact command where root is out of reach, with the names where this is no Debian, and with
 * apt's last lines where it fails.
 */
export async function ensurePackages(
  names: readonly string[],
  progress: Progress,
  host?: PackageHost,
): Promise<void> {
  const { run, root, systemd, hasLists, exists } = host ?? (await thisHost());
  const missing = await missingPackages(names, run);
  if (missing.length === 0) return;
  const install = installArguments(missing);
  const prefix = await rootPrefix(run, root);
  if (prefix === undefined)
    throw new LabError(
      `These Debian packages are missing: ${missing.join(", ")}. Installing them needs root, and sudo asks for a password here. Run this, then try again:\n  ${installCommand(missing)}`,
    );

  const asRoot = (...command: string[]) => [...prefix, ...command];
  const apt = (...args: string[]) =>
    run(asRoot("env", "DEBIAN_FRONTEND=noninteractive", "apt-get", ...aptOptions, ...args), {
      onLine: (line) => {
        const step = describe(line);
        if (step) progress(step);
      },
    });
  const update = () => {
    progress("updating the lists of Debian packages");
    return apt("update");
  };

  progress(`installing Debian packages: ${missing.join(" ")}`);
  const ownPolicy = !systemd && !(await foreignPolicy(run, exists));
  if (ownPolicy) await run(asRoot("install", "-m", "0755", "/dev/stdin", policyFile), { input: policy });
  try {
    const fresh = !(await hasLists());
    if (fresh) await update();
    let result = await apt(...install);
    // Old lists name files that a mirror no longer has.
    if (result.exitCode !== 0 && !fresh) {
      await update();
      result = await apt(...install);
    }
    if (result.exitCode !== 0)
      throw new LabError(
        `Debian's packages ${missing.join(", ")} could not be installed:\n${lastLines(result.stderr || result.stdout)}\nSee what this says, then try again:\n  sudo ${shown(["apt-get", ...install])}`,
      );
  } finally {
    if (ownPolicy) await run(asRoot("rm", "-f", policyFile));
  }
}

const installArguments = (names: readonly string[]): string[] => [
  "install",
  "-y",
  "--no-install-recommends",
  ...names,
];

/** What a person types to install Debian packages as the lab would. */
export const installCommand = (names: readonly string[]): string =>
  `sudo apt-get update && sudo ${shown(["apt-get", ...installArguments(names)])}`;

/**
 * Which of these Debian packages are not installed.
 * @throws LabError that names the packages where this computer has no dpkg.
 */
export async function missingPackages(names: readonly string[], run: Run = runHere): Promise<string[]> {
  if (names.length === 0) return [];
  const { exitCode, stdout } = await run([
    "dpkg-query",
    "--show",
    // biome-ignore lint/suspicious/noTemplateCurlyInString: dpkg's own placeholders
    "--showformat=${Package} ${db:Status-Status}\n",
    ...names,
  ]);
  if (exitCode === undefined)
    throw new LabError(
      `This computer has no Debian packages. Install what these hold by its own package manager, then try again: ${names.join(", ")}.`,
    );
  const installed = new Set(
    stdout
      .split("\n")
      .filter((line) => line.endsWith(" installed"))
      .map((line) => line.split(" ")[0]),
  );
  return names.filter((name) => !installed.has(name));
}

/** A policy of somebody else stays; one that an interrupted run of ours left is ours to take away. */
async function foreignPolicy(run: Run, exists: PackageHost["exists"]): Promise<boolean> {
  if (!(await exists(policyFile))) return false;
  const { stdout } = await run(["cat", policyFile]);
  return stdout.trim() !== policy.trim();
}

/** What apt is at; empty where a person would not care. */
function describe(line: string): string {
  const [, fetched] = /^Get:\d+ \S+ \S+ \S+ ([a-z0-9][\w.+-]*) /.exec(line) ?? [];
  if (fetched) return `downloading ${fetched}`;
  const [, step = "", name = ""] = /^(Unpacking|Setting up) (\S+)/.exec(line) ?? [];
  return name === "" ? "" : `${step.toLowerCase()} ${name}`;
}
