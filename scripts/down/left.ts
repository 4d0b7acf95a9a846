import { docker, listContainers } from "../../stacks/k3d/docker.ts";
import { LabError } from "../../stacks/lib/errors.ts";
import { labId, lostId } from "../../stacks/lib/lab-id.ts";
import { root } from "../../stacks/lib/paths.ts";
import type { Provider } from "../../stacks/model/provider.ts";
import { canAskDocker } from "../../stacks/observe/k3d-host.ts";
import { virtualMachinesHere } from "../labs-here.ts";

/**
 * What carries this lab's label: labels of containers, networks and volumes, and what is written on virtual machines.
 * @param used where the lab was, and what therefore must answer; where that is not known, every provider of virtual machines.
 * @throws LabError where a provider does not: then nobody knows.
 */
export async function ownThings(used: readonly Provider[]): Promise<string[]> {
  const [id, inDocker, machines] = await Promise.all([
    labId(),
    used.includes("docker") ? ownInDocker() : ownInDocker().catch(() => []),
    virtualMachinesHere(used),
  ]);
  const own = machines.filter(({ labels }) => labels.id === id || labels.checkout === root);
  return [...inDocker, ...own.map(({ name }) => `virtual machine ${name}`)];
}

async function ownInDocker(): Promise<string[]> {
  const marks = { "k3s-lab.id": await labId(), "k3s-lab.checkout": root };
  const found = Object.entries(marks).map(async ([key, value]) => {
    const filter = ["--filter", `label=${key}=${value}`];
    const named = async (word: string, kind: string) =>
      lines(await docker([kind, "ls", "--format", "{{.Name}}", ...filter])).map((name) => `${word} ${name}`);
    const [containers, ...others] = await Promise.all([
      listContainers(...filter),
      named("Docker network", "network"),
      named("volume", "volume"),
    ]);
    // A label that a container has from its image is not its own.
    const own = containers.filter(({ labels }) => labels[key] === value);
    return [...own.map(({ name }) => `container ${name}`), ...others.flat()];
  });
  return [...new Set((await Promise.all(found)).flat())];
}

const lines = (text: string): string[] => text.split("\n").filter(Boolean);

/**
 * Refuses to say that nothing of these stacks was started from here, where a provider has what says that it was.
 * @throws LabError with the next step; where a provider is here and does not say what it has.
 */
export async function refuseForgotten(stacks: readonly string[]): Promise<void> {
  const id = await labId();
  const ofThisFolder = ["--filter", `label=k3s-lab.checkout=${root}`];
  const containers = (await canAskDocker()) ? await listContainers(...ofThisFolder) : [];
  for (const { name, labels } of containers) {
    const other = labels["k3s-lab.id"] ?? id;
    if (other !== id) throw lostId(`The container ${name}`, other);
  }
  for (const { name, labels } of await virtualMachinesHere()) {
    if (labels.checkout === root && labels.id !== undefined && labels.id !== id)
      throw lostId(`The virtual machine ${name}`, labels.id);
    // Of Docker and libvirt is asked before, and what is found there is taken down.
    if (labels.id === id && labels.stack !== undefined && stacks.includes(labels.stack))
      throw new LabError(
        `VirtualBox has ${name}, which an interrupted run made, and neither Pulumi nor Vagrant knows of it. Nothing was touched. Stop it, where it runs, by \`VBoxManage controlvm '${name}' poweroff\`, remove it by \`VBoxManage unregistervm '${name}' --delete\`, then run the same command again.`,
      );
  }
}
