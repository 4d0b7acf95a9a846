import { exists } from "../stacks/lib/files.ts";
import { run } from "./host/commands.ts";
import { ownHost } from "./host/docker.ts";

/** Where the default Docker, and a daemon of the lab's own that it may not know of, are asked. */
const dockers: readonly (readonly string[])[] = [["docker"], ["docker", "--host", ownHost]];

/** What labels a container of a lab, and of a k3d cluster by one of the names that the lab's stacks have. */
const format = [
  "{{.Names}}",
  '{{.Label "k3s-lab.id"}}',
  '{{.Label "k3s-lab.checkout"}}',
  '{{.Label "k3d.cluster"}}',
].join("\t");

/**
 * The machines and containers of labs on this computer, of whichever checkout and whether they run or not, such as
 * "the container k3s-lab-cluster-server of /home/me/lab". A provider that does not answer has none to show.
 */
export async function labsHere(): Promise<string[]> {
  const lists = dockers.map(async (docker) => {
    const socket = docker.at(-1)?.replace(/^unix:\/\//, "") ?? "";
    if (docker.length > 1 && !(await exists(socket))) return [];
    const { stdout } = await run([...docker, "ps", "--all", "--format", format], { timeout: 10_000 });
    return stdout.split("\n").flatMap(containerIn);
  });
  const virsh = ["virsh", "--connect", "qemu:///system", "--quiet", "list", "--all", "--name"];
  const domains = run(virsh, { timeout: 10_000 }).then(({ stdout }) =>
    stdout.split("\n").filter((name) => name.startsWith("k3s-lab-")),
  );
  const found = (await Promise.all(lists)).flat();
  return [...new Set([...found, ...(await domains).map((name) => `the virtual machine ${name}`)])];
}

/** @param line as `format` has it. */
function containerIn(line: string): string[] {
  const [name = "", id, checkout, cluster = ""] = line
    .split("\t")
    .map((value) => (value === "<no value>" ? "" : value));
  const isLab = Boolean(id || checkout) || /^k3d(-ha)?$/.test(cluster);
  return isLab ? [`the container ${name}${checkout ? ` of ${checkout}` : ""}`] : [];
}
