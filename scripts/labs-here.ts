import { absenceIn } from "../stacks/k3d/docker.ts";
import { LabError } from "../stacks/lib/errors.ts";
import type { Provider } from "../stacks/model/provider.ts";
import { type ListedMachine, listMachines } from "../stacks/observe/machine-list.ts";
import { lastLines, run } from "./host/commands.ts";
import { canAskLibvirt } from "./host/libvirt.ts";
import { hasOwnDocker, ownHost } from "./host/own-docker.ts";

/** The labels of lab containers, and of k3d clusters named like the lab's stacks. */
const format = [
  "{{.Names}}",
  '{{.Label "k3s-lab.id"}}',
  '{{.Label "k3s-lab.checkout"}}',
  '{{.Label "k3d.cluster"}}',
].join("\t");

/**
 * The machines and containers of all checkouts' labs on this computer, running or not, such as
 * "the container k3s-lab-cluster-server of /home/me/lab".
 * @throws LabError if an installed provider gives no list: then the result is unknown.
 */
export async function labsHere(): Promise<string[]> {
  // The default Docker, and the lab's own daemon, which may be another one.
  const dockers = [["docker"]];
  if (await hasOwnDocker()) dockers.push(["docker", "--host", ownHost]);
  const [machines, ...containers] = await Promise.all([virtualMachinesHere(), ...dockers.map(containersIn)]);
  const all = machines.map(({ name, labels }) => `the virtual machine ${name}${of(labels.checkout)}`);
  return [...new Set([...containers.flat(), ...all])];
}

/**
 * The virtual machines of all labs, in every installed provider and of every user.
 * @param used providers that must answer, while others need not. Default: unknown, so all installed ones must.
 * @throws LabError if one gives no list.
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
  // A killed daemon leaves its socket, and its containers keep running.
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
