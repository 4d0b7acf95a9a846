import { readdir, readFile, stat } from "node:fs/promises";
import { execa } from "execa";
import { ownHost } from "../../scripts/host/own-docker.ts";
import { ifThere } from "../../stacks/lib/files.ts";

/** Asks the lab over HTTP as `curl -H "Host: …" http://…/` does, with `Accept: application/json`. */
export async function ask(
  address: string,
  host: string,
): Promise<{ app: string; pod: string; version: string; namespace: string }> {
  const { stdout } = await execa("curl", [
    ...["--silent", "--show-error", "--fail", "--max-time", "10"],
    ...["--header", `Host: ${host}`, "--header", "Accept: application/json", `http://${address}/`],
  ]);
  return JSON.parse(stdout) as Awaited<ReturnType<typeof ask>>;
}

/**
 * What of the kinds that a lab makes is on this computer: interfaces, routes, rules, folders in place of Docker's sockets, and
 * the programs of a checkout's lab, a line each. Programs of others are nobody's concern.
 *
 * @param directory the checkout.
 */
export async function hostState(directory: string): Promise<ReadonlySet<string>> {
  const questions = [
    ["ip", "-oneline", "link", "show", "type", "bridge"],
    ["ip", "-oneline", "link", "show", "type", "veth"],
    ["ip", "-4", "route", "show"],
    ["iptables", "--list-rules"],
    ["iptables", "--table", "nat", "--list-rules"],
  ] satisfies readonly [string, ...string[]][];
  const lists = questions.map(async ([file = "", ...args]) => {
    const { stdout = "" } = await execa(file, args, { reject: false });
    // Of an interface: what it is called and the bridge that it is in, without what changes by itself.
    const lines = stdout.split("\n").map((line) => {
      const [, name, master = ""] = /^\d+: ([^:@]+).*?( master \S+)?(?: state .*)?$/.exec(line) ?? [];
      return `${name === undefined ? line.trim() : `${name}${master}`}`;
    });
    return lines.filter(Boolean).map((line) => `${args.includes("link") ? "interface" : file} ${line}`);
  });
  const folders = await Promise.all(dockerSockets.map(foldersAt));
  return new Set([...(await Promise.all(lists)).flat(), ...folders.flat(), ...(await programsOf(directory))]);
}

/** Where a Docker has its socket: the system's, and the lab's own. */
const dockerSockets = ["/var/run/docker.sock", ownHost.replace("unix://", "")];

/** Docker makes a folder where a container mounts a socket that is not there; no daemon could start there any more. */
const foldersAt = async (path: string): Promise<string[]> =>
  (await ifThere(stat(path)))?.isDirectory() ? [`folder ${path}`] : [];

/** The programs that a checkout's lab runs, and the daemons of the labs of this computer. */
async function programsOf(directory: string): Promise<string[]> {
  const pids = (await readdir("/proc")).filter((name) => /^\d+$/.test(name));
  const found = await Promise.all(
    pids.map(async (pid) => {
      const read = (file: string) => readFile(`/proc/${pid}/${file}`, "latin1").catch(() => "");
      const [line, environment] = await Promise.all([read("cmdline"), read("environ")]);
      // One that has ended and only waits to be reaped has no command line.
      const isLabs =
        line !== "" &&
        (line.includes(directory) || line.includes("/run/k3s-lab/") || environment.includes(directory));
      return isLabs && pid !== String(process.pid) ? [`program ${pid} ${line.replaceAll("\0", " ")}`] : [];
    }),
  );
  return found.flat();
}

/**
 * What has appeared on this computer since, and belongs to no network of a Docker of somebody else's.
 * @param before as `hostState` found it.
 */
export async function newOnHost(before: ReadonlySet<string>, directory: string): Promise<string[]> {
  const format = "{{.ID}}\t{{.Labels}}";
  const { stdout = "" } = await execa("docker", ["network", "ls", "--format", format], { reject: false });
  const others = stdout
    .split("\n")
    .filter((line) => line !== "" && !/k3s-lab|app=k3d/.test(line))
    .map((line) => `br-${line.slice(0, 12)}`);
  const isOthers = (line: string) =>
    [...others, ...(stdout === "" ? [] : ["docker0"])].some((bridge) => line.includes(bridge));
  return [...(await hostState(directory))].filter((line) => !before.has(line) && !isOthers(line));
}
