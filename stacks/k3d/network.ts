import { LabError } from "../../scripts/errors.ts";
import { type Cluster, isRegistry, isServer, labelArgs, labelsOf, networkOf } from "./cluster.ts";
import {
  type Container,
  containersOf,
  docker,
  dockerError,
  inspect,
  isAbsent,
  removeContainer,
  removeNamed,
  tryDocker,
} from "./docker.ts";
import { freeAddress, gatewayOf } from "./node.ts";

/**
 * Makes the cluster's network with the lab's labels, which k3d cannot do. Docker gives fixed addresses only in a network
 * whose range was said: without one of the file's, it is the one that Docker itself finds free.
 * @returns its range.
 */
export async function makeNetwork(cluster: Cluster, wanted: string): Promise<string> {
  const make = (...range: string[]) =>
    docker([
      ...["network", "create", "--driver", "bridge", ...range],
      ...["--opt", "com.docker.network.bridge.enable_ip_masquerade=true"],
      ...labelArgs({ ...labelsOf(cluster), app: "k3d" }),
      networkOf(cluster),
    ]);
  let range = wanted;
  if (wanted === "auto") {
    await make();
    range = await subnetOf(cluster);
    await docker(["network", "rm", networkOf(cluster)]);
  }
  await make("--subnet", range, "--gateway", gatewayOf(range));
  return range;
}

export const subnetOf = (cluster: Cluster): Promise<string> =>
  docker(["network", "inspect", "--format", "{{(index .IPAM.Config 0).Subnet}}", networkOf(cluster)]);

/** Removes a network of the lab's own with whatever is still in it: k3d's helper, a registry that others use too. */
export async function removeNetwork(network: string, registries: readonly string[]): Promise<void> {
  const name = await tryDocker(["network", "inspect", "--format", "{{.Name}}", network]);
  if (name.failed) {
    if (isAbsent(name)) return;
    throw dockerError(name, `docker network inspect ${network}`);
  }
  // k3d runs a helper beside a cluster for moments, and gives it no labels; an interrupted k3d leaves it.
  const tools = await inspect(`${name.stdout.trim()}-tools`);
  if (tools && name.stdout.trim() in tools.NetworkSettings.Networks) await removeContainer(tools.Id);
  const attached = await docker(["ps", "--all", "--format", "{{.Names}}", "--filter", `network=${network}`]);
  for (const one of attached.split("\n").filter(Boolean)) {
    const container = await inspect(one);
    if (container && (isRegistry(container) || registries.includes(one)))
      await docker(["network", "disconnect", "--force", network, one]);
  }
  await removeNamed("network", network);
}

const addressesOf = ({ NetworkSettings }: Container): string[] =>
  Object.values(NetworkSettings.Networks).flatMap(({ IPAddress, IPAMConfig }) =>
    [IPAddress, IPAMConfig?.IPv4Address ?? ""].filter(Boolean),
  );

/** @throws LabError where the cluster's network is full. */
export async function freeAddressOf(cluster: Cluster, name: string): Promise<string> {
  const range = await subnetOf(cluster);
  const used = (await containersOf(cluster.owner)).flatMap(addressesOf);
  const address = freeAddress(range, [gatewayOf(range), ...used]);
  if (address === undefined)
    throw new LabError(`The network ${networkOf(cluster)}, ${range}, has no address left for ${name}.`);
  return address;
}

/**
 * Gives every container the address that it has, for good: Docker gives out addresses in the order containers start, and
 * after a restart of Docker another may have a server's. K3s's tunnel lies on the interface that goes; where flannel has
 * laid it already, K3s starts again.
 */
export async function pinAll(cluster: Cluster, range: string): Promise<void> {
  const network = networkOf(cluster);
  const attached = await docker(["ps", "--quiet", "--no-trunc", "--filter", `network=${network}`]);
  const containers = await Promise.all(attached.split("\n").filter(Boolean).map(inspect));
  const pin = async (container: Container) => {
    const { IPAddress: ip = "", IPAMConfig } = container.NetworkSettings.Networks[network] ?? {};
    if (ip === "" || IPAMConfig?.IPv4Address === ip) return;
    const hasTunnel = isServer(container) && (await layTunnel(container));
    if (hasTunnel) await docker(["kill", container.Id]);
    await docker(["network", "disconnect", network, container.Id]);
    await docker(["network", "connect", "--ip", ip, network, container.Id]);
    if (hasTunnel) await docker(["start", container.Id]);
    // It may have laid one in these very moments.
    else if (
      isServer(container) &&
      (await layTunnel(container)) &&
      !(await exists(container, "/sys/class/net/flannel.1"))
    )
      await docker(["restart", "--time", "1", container.Id]);
  };
  await Promise.all(containers.filter((one) => one !== undefined).map(pin));
  console.log(`the addresses in ${range} are fixed`);
}

const exists = async (container: Container, path: string): Promise<boolean> =>
  !(await tryDocker(["exec", container.Id, "test", "-e", path])).failed;
const layTunnel = (container: Container): Promise<boolean> => exists(container, "/run/flannel/subnet.env");
