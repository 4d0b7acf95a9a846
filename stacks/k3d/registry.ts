import {
  type Cluster,
  isOwn,
  isRegistry,
  labelArgs,
  labelsOf,
  networkOf,
  type RegistryInput,
} from "./cluster.ts";
import {
  containersOf,
  docker,
  inspect,
  namesOf,
  type Owner,
  removeContainer,
  removeNamed,
  tryDocker,
} from "./docker.ts";
import { pull, withFiles } from "./make.ts";
import { freeAddressOf } from "./network.ts";
import { taken } from "./refusals.ts";

export const registryVolume = ({ stack }: Owner): string => `k3d-${stack}-registry`;

/** Makes the container of a registry, or makes it again: its images are in a volume and stay. */
export async function makeRegistry(cluster: Cluster, input: RegistryInput): Promise<void> {
  const { name, image, address, port, volumes, env, boot } = input;
  const there = await inspect(name);
  if (there && !isOwn(cluster, there)) throw taken(cluster, `container ${name}`);
  const labels = labelsOf(cluster);
  const old = (await containersOf(cluster.owner)).filter(isRegistry);
  await pull(image);
  for (const { Id } of old) await removeContainer(Id);
  const own = registryVolume(cluster.owner);
  if (volumes.length === 0) await docker(["volume", "create", ...labelArgs(labels), own]);
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
      ...(volumes.length ? volumes : [`${own}:/var/lib/registry`]).flatMap((one) => ["--volume", one]),
      image,
    ]);
  });
  if ((await tryDocker(["network", "inspect", networkOf(cluster)])).failed === false) {
    await docker([
      "network",
      "connect",
      "--ip",
      await freeAddressOf(cluster, name),
      networkOf(cluster),
      name,
    ]);
  }
  await docker(["start", name]);
}

/** Removes the registry with its images. */
export async function removeRegistry(owner: Owner): Promise<void> {
  for (const { Id } of (await containersOf(owner)).filter(isRegistry)) await removeContainer(Id);
  for (const volume of await namesOf("volume", owner))
    if (volume === registryVolume(owner)) await removeNamed("volume", volume);
}
