import { readFile } from "node:fs/promises";
import { isIP } from "node:net";
import { execa } from "execa";
import { refusal } from "../../stacks/lib/errors.ts";
import { parseNetwork } from "../../stacks/model/addresses.ts";

const networksConf = "/etc/vbox/networks.conf";

const defaultRange = "192.168.56.0/21";

/**
 * Why VirtualBox will not create a host-only network, with the missing line and the command that adds it; undefined
 * if it will.
 *
 * VirtualBox has had this rule since 6.1.28, except on Windows and, since 7.0, on macOS, whose host-only networks are of
 * another kind: https://www.virtualbox.org/manual/ch06.html#network_hostonly. Lines with ranges begin with `*`; an existing
 * file replaces the default, even an empty one.
 * @param network such as 192.168.42.0/24.
 * @param file the text of /etc/vbox/networks.conf, undefined if it does not exist.
 * @param version what `VBoxManage --version` prints, such as 7.0.20r163906.
 * @param platform Default: this computer's.
 */
export function networksConfProblem(
  network: string,
  file: string | undefined,
  version: string,
  platform: NodeJS.Platform = process.platform,
): string | undefined {
  if (!hasRule(version, platform)) return undefined;
  const ranges = file === undefined ? [defaultRange] : rangesOf(file);
  if (ranges.some((range) => holds(range, network))) return undefined;
  const add = `| sudo tee -a ${networksConf}`;
  // A new file replaces the default, which other machines need, so it must list that too.
  const command =
    file === undefined
      ? `sudo mkdir -p /etc/vbox && printf '* ${defaultRange}\\n* ${network}\\n' ${add}`
      : `echo '* ${network}' ${add}`;
  const allowed = ranges.length ? `only ${ranges.join(", ")}` : "no network at all";
  return `VirtualBox allows ${allowed} for host-only networks, and the lab's is ${network}: ${networksConf} needs the line\n  * ${network}\nAdd it with:\n  ${command}`;
}

/**
 * Refuses, before anything is touched, a network that VirtualBox on this computer will not create.
 * @throws LabError (exit code 2) with the line and the command; not if VirtualBox is missing.
 */
export async function refuseUnlessAllowed(network: string): Promise<void> {
  const { failed, stdout } = await execa("VBoxManage", ["--version"], { reject: false, stdin: "ignore" });
  if (failed) return;
  const file = await readFile(networksConf, "utf8").catch(() => undefined);
  // The last line: warnings about kernel modules come before it.
  const problem = networksConfProblem(network, file, stdout.trim().split("\n").at(-1) ?? "");
  if (problem !== undefined) throw refusal(problem);
}

function hasRule(version: string, platform: NodeJS.Platform): boolean {
  const [major = 0, minor = 0, patch = 0] = version.split(/\D+/).map(Number);
  if (platform === "win32" || (platform === "darwin" && major >= 7)) return false;
  return major > 6 || (major === 6 && (minor > 1 || (minor === 1 && patch >= 28)));
}

const rangesOf = (file: string): string[] =>
  file
    .split("\n")
    .map((line) => line.trim())
    .filter((line) => line.startsWith("*"))
    .flatMap((line) => line.slice(1).split(/\s+/))
    .filter((range) => isIP(range.split("/")[0] ?? "") !== 0);

/** Whether a range contains a whole network; never if they are of different address families. */
function holds(range: string, network: string): boolean {
  const [outer, inner] = [parseNetwork(range), parseNetwork(network)];
  return outer !== undefined && inner !== undefined && outer.first <= inner.first && inner.last <= outer.last;
}
