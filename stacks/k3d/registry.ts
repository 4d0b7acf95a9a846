import { refusal } from "../lib/errors.ts";
import { type Cluster, labelsOf, networkOf, pairs, type RegistryInput } from "./cluster.ts";
import {
  containersOf,
  docker,
  inspectOwn,
  isThere,
  namesOf,
  type Owner,
  removeContainer,
  removeNamed,
  repeat,
} from "./docker.ts";
import { createContainer, pull } from "./make.ts";
import { freeAddressOf } from "./network.ts";

export const registryVolume = ({ stack }: Owner): string => `k3d-${stack}-registry`;

const dataFolder = "/var/lib/registry";

/** Creates or recreates the registry's container: its images are in a volume and stay. */
export async function makeRegistry(cluster: Cluster, input: RegistryInput): Promise<void> {
  const { name, image, address, port, volumes, env, boot } = input;
  await inspectOwn(cluster.owner, name, "registries.create.name");
  const labels = labelsOf(cluster);
  const own = registryVolume(cluster.owner);
  // Otherwise Docker would put the images into an anonymous volume, which is deleted with the container.
  const hasOwn = !volumes.some((one) => one.split(":")[1] === dataFolder);
  if (hasOwn) await docker(["volume", "create", ...repeat("--label", pairs(labels)), own]);
  // Docker creates no volume if one of that name exists, whoever created it.
  if (hasOwn && !(await namesOf("volume", cluster.owner)).includes(own))
    throw refusal(
      `A volume ${own} already exists and does not belong to this stack. Remove it (docker volume rm ${own}), or keep the registry's images elsewhere: registries.create.volumes, such as /srv/images:${dataFolder}.`,
    );
  await pull(image);
  await removeContainers(cluster.owner);
  const marks = {
    ...{ ...labels, "k3s-lab.boot": boot, app: "k3d" },
    ...{ "k3d.role": "registry", "k3d.registry.host": address, "k3d.registry.hostIP": address },
    ...{ "k3s.registry.port.external": port, "k3s.registry.port.internal": "5000" },
  };
  const all = [...volumes, ...(hasOwn ? [`${own}:${dataFolder}`] : [])];
  await createContainer(name, {
    args: ["--publish", `${address}:${port}:5000`, ...repeat("--volume", all), image],
    env,
    labels: pairs(marks),
  });
  const network = networkOf(cluster);
  if (await isThere("network", network)) {
    const free = await freeAddressOf(cluster, name);
    await docker(["network", "connect", "--ip", free, network, name]);
  }
  await docker(["start", name]);
}

async function removeContainers(owner: Owner): Promise<void> {
  for (const { id, role } of await containersOf(owner)) if (role === "registry") await removeContainer(id);
}

export async function removeRegistry(owner: Owner): Promise<void> {
  await removeContainers(owner);
  if ((await namesOf("volume", owner)).includes(registryVolume(owner)))
    await removeNamed("volume", registryVolume(owner));
}
