import { LabError } from "../../scripts/errors.ts";
import { type Cluster, isRegistry, labelArgs, labelsOf, networkOf, type RegistryInput } from "./cluster.ts";
import {
  containersOf,
  docker,
  inspect,
  isOwn,
  namesOf,
  nameTaken,
  type Owner,
  removeContainer,
  removeNamed,
} from "./docker.ts";
import { pull, withFiles } from "./make.ts";
import { freeAddressOf, networkIsThere } from "./network.ts";

export const registryVolume = ({ stack }: Owner): string => `k3d-${stack}-registry`;

/** Where a registry keeps its images. */
const dataFolder = "/var/lib/registry";

/** Makes the container of a registry, or makes it again: its images are in a volume and stay. */
export async function makeRegistry(cluster: Cluster, input: RegistryInput): Promise<void> {
  const { name, image, address, port, volumes, env, boot } = input;
  const there = await inspect(name);
  if (there && !isOwn(cluster.owner, there)) throw nameTaken(name, "registries.create.name");
  const labels = labelsOf(cluster);
  const own = registryVolume(cluster.owner);
  // Else Docker would put the images into a volume without a name, which goes with the container.
  const hasOwn = !volumes.some((one) => one.split(":")[1] === dataFolder);
  if (hasOwn) await docker(["volume", "create", ...labelArgs(labels), own]);
  // Docker makes none where there is one of that name already, whoever made it.
  if (hasOwn && !(await namesOf("volume", cluster.owner)).includes(own))
    throw new LabError(
      `There is a volume ${own} already that is not of this stack. Remove it (docker volume rm ${own}), or keep the registry's images elsewhere: registries.create.volumes, such as /srv/images:${dataFolder}.`,
      { exitCode: 2 },
    );
  const old = (await containersOf(cluster.owner)).filter(isRegistry);
  await pull(image);
  for (const { Id } of old) await removeContainer(Id);
  const marks = {
    ...labels,
    "k3s-lab.boot": boot,
    ...{ app: "k3d", "k3d.role": "registry", "k3d.registry.host": address, "k3d.registry.hostIP": address },
    ...{ "k3s.registry.port.external": port, "k3s.registry.port.internal": "5000" },
  };
  await withFiles({ env }, async (files) => {
    await docker([
      ...["create", "--name", name, "--hostname", name, "--restart", "unless-stopped", ...labelArgs(marks)],
      ...["--env-file", files.env, "--publish", `${address}:${port}:5000`],
      ...[...volumes, ...(hasOwn ? [`${own}:${dataFolder}`] : [])].flatMap((one) => ["--volume", one]),
      image,
    ]);
  });
  if (await networkIsThere(networkOf(cluster))) {
    const address = await freeAddressOf(cluster, name);
    await docker(["network", "connect", "--ip", address, networkOf(cluster), name]);
  }
  await docker(["start", name]);
}

/** Removes the registry with its images. */
export async function removeRegistry(owner: Owner): Promise<void> {
  for (const { Id } of (await containersOf(owner)).filter(isRegistry)) await removeContainer(Id);
  for (const volume of await namesOf("volume", owner))
    if (volume === registryVolume(owner)) await removeNamed("volume", volume);
}
