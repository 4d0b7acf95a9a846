import { docker, listContainers } from "../../stacks/k3d/docker.ts";
import { LabError } from "../../stacks/lib/errors.ts";
import { labId, lostId } from "../../stacks/lib/lab-id.ts";
import { root } from "../../stacks/lib/paths.ts";
import type { Provider } from "../../stacks/model/provider.ts";
import { canAskDocker } from "../../stacks/observe/k3d-host.ts";
import { virtualMachinesHere } from "../labs-here.ts";

/**
 * Everything that carries this lab's label: containers, networks and volumes, and virtual machines by their description.
 * @param used the lab's providers, which must answer; if unknown, every provider of virtual machines.
 * @throws LabError if a provider does not answer: then the result is unknown.
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
    // Ignore labels that a container inherited from its image.
    const own = containers.filter(({ labels }) => labels[key] === value);
    return [...own.map(({ name }) => `container ${name}`), ...others.flat()];
  });
  return [...new Set((await Promise.all(found)).flat())];
}

const lines = (text: string): string[] => text.split("\n").filter(Boolean);

/**
 * Refuses to report that nothing of these stacks was started here if a provider has machines labelled so.
 * @throws LabError with the next step, or if an installed provider does not list its machines.
 */
export async function refuseForgottenMachines(stacks: readonly string[]): Promise<void> {
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
    // Docker and libvirt were checked before, and what they had is taken down.
    if (labels.id === id && labels.stack !== undefined && stacks.includes(labels.stack))
      throw new LabError(
        `VirtualBox has ${name}, which an interrupted run created and neither Pulumi nor Vagrant knows. Nothing was touched. If it is running, stop it with \`VBoxManage controlvm '${name}' poweroff\`; remove it with \`VBoxManage unregistervm '${name}' --delete\`, then run the same command again.`,
      );
  }
}
