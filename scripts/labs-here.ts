import { absenceIn } from "../stacks/k3d/docker.ts";
import { LabError } from "../stacks/lib/errors.ts";
import type { Provider } from "../stacks/model/provider.ts";
import { type ListedMachine, listMachines } from "../stacks/observe/machine-list.ts";
import { lastLines, run } from "./host/commands.ts";
import { canAskLibvirt } from "./host/libvirt.ts";
import { hasOwnDocker, ownHost } from "./host/own-docker.ts";

/** What labels a container of a lab, and of a k3d cluster by one of the names that the lab's stacks have. */
const format = [
  "{{.Names}}",
  '{{.Label "k3s-lab.id"}}',
  '{{.Label "k3s-lab.checkout"}}',
  '{{.Label "k3d.cluster"}}',
].join("\t");

/**
 * The machines and containers of labs on this computer, of whichever checkout and whether they run or not, such as
 * "the container k3s-lab-cluster-server of /home/me/lab".
 * @throws LabError where a provider is here and gives no list: then nobody knows.
 */
export async function labsHere(): Promise<string[]> {
  // The default Docker, and a daemon of the lab's own that it may not know of.
  const dockers = [["docker"]];
  if (await hasOwnDocker()) dockers.push(["docker", "--host", ownHost]);
  const [machines, ...containers] = await Promise.all([virtualMachinesHere(), ...dockers.map(containersIn)]);
  const all = machines.map(({ name, labels }) => `the virtual machine ${name}${of(labels.checkout)}`);
  return [...new Set([...containers.flat(), ...all])];
}

/**
 * The virtual machines of labs, of every provider that is here and whoever made them.
 * @param used providers that must be here, while others need not answer. Default: not known, and all that are here must.
 * @throws LabError where one gives no list.
 */
export async function virtualMachinesHere(used: readonly Provider[] = []): Promise<ListedMachine[]> {
  const hasVirtualBox = async () => (await run(["VBoxManage", "--version"], asks)).ended !== "missing";
  const here = { libvirt: canAskLibvirt, virtualbox: hasVirtualBox };
  const machinesOf = async (provider: keyof typeof here) =>
    used.includes(provider) || (await here[provider]()) ? await listMachines(provider) : [];
  const asked = (["libvirt", "virtualbox"] as const).map((provider) =>
    used.length === 0 || used.includes(provider)
      ? machinesOf(provider)
      : machinesOf(provider).catch(() => []),
  );
  return (await Promise.all(asked)).flat();
}

const asks = { timeout: 10_000 } as const;

async function containersIn(docker: readonly string[]): Promise<string[]> {
  const { exitCode, stdout, stderr, ended } = await run([...docker, "ps", "--all", "--format", format], asks);
  if (exitCode === 0) return stdout.split("\n").flatMap(containerIn);
  // A daemon that was killed leaves its socket, and its containers run on.
  if (ended === "missing" || (await absenceIn(stderr)) === "none") return [];
  throw new LabError(
    `Docker does not say whether a lab is here: ${lastLines(stderr, 1)}. See that \`${docker.join(" ")} ps --all\` answers, then run the same command again.`,
  );
}

function containerIn(line: string): string[] {
  const [name = "", id, checkout, cluster = ""] = line
    .split("\t")
    .map((value) => (value === "<no value>" ? "" : value));
  const isLab = Boolean(id || checkout) || /^k3d(-ha)?$/.test(cluster);
  return isLab ? [`the container ${name}${of(checkout)}`] : [];
}

const of = (checkout: string | undefined): string => (checkout ? ` of ${checkout}` : "");
