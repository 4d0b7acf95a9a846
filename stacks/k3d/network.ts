import { LabError } from "../lib/errors.ts";
import { freeAddress, gatewayOf, isWithin } from "./addresses.ts";
import { type Cluster, labelsOf, networkOf, pairs } from "./cluster.ts";
import {
  type Container,
  containersOf,
  docker,
  dockerError,
  isAbsent,
  isOwn,
  listContainers,
  type Owner,
  removeContainer,
  removeNamed,
  repeat,
  tryDocker,
} from "./docker.ts";

/**
 * Creates the cluster's network with the lab's labels, which k3d cannot do. Docker allows fixed addresses only in a network
 * with an explicit range: without one in the file, it is the range that Docker itself finds free.
 * @returns its range.
 */
export async function makeNetwork(cluster: Cluster, wanted: string): Promise<string> {
  const make = (...range: string[]) =>
    docker([
      ...["network", "create", "--driver", "bridge", ...range],
      ...["--opt", "com.docker.network.bridge.enable_ip_masquerade=true"],
      ...repeat("--label", pairs({ ...labelsOf(cluster), app: "k3d" })),
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

/** The containers in a network, running or not, whoever created them. */
const attachedTo = (network: string): Promise<readonly Container[]> =>
  listContainers("--filter", `network=${network}`);

/** k3d runs a short-lived helper beside a cluster without labels; an interrupted k3d leaves it behind. */
const isHelper = (network: string, container: Container): boolean =>
  container.name === `${network}-tools` && container.labels.app === "k3d";

/**
 * Refuses to remove networks with other people's containers: Docker would refuse too, but only after everything else is
 * gone.
 * @throws LabError that names them.
 */
export async function refuseOthersContainers(owner: Owner, networks: readonly string[]): Promise<void> {
  for (const network of networks) {
    const others = (await attachedTo(network)).filter(
      (one) => !isOwn(owner, one) && one.role !== "registry" && !isHelper(network, one),
    );
    if (others.length === 0) continue;
    const names = others.map(({ name }) => name);
    throw new LabError(
      `The network ${network} would be removed with its cluster, but the lab did not create everything in it: ${names.join(", ")}. Nothing was removed. Disconnect it (${names.map((name) => `docker network disconnect --force ${network} ${name}`).join("; ")}) or remove it, then run the same command again.`,
    );
  }
}

/** Removes a lab network with what may still be in it: k3d's helper, and a registry that others share. */
export async function removeNetwork(network: string): Promise<void> {
  for (const one of await attachedTo(network)) {
    if (isHelper(network, one)) await removeContainer(one.id);
    else if (one.role === "registry") await docker(["network", "disconnect", "--force", network, one.id]);
  }
  await removeNamed("network", network);
}

/** The containers' addresses in a cluster's network. Stopped containers have none, and get theirs back. */
const usedAddresses = async (cluster: Cluster): Promise<string[]> =>
  [...(await containersOf(cluster.owner)), ...(await attachedTo(networkOf(cluster)))].flatMap(
    ({ networks }) => networks.flatMap(({ address, fixed }) => [address, fixed]),
  );

/** A check whether an address is free in the cluster's network. */
export async function freeAddresses(cluster: Cluster): Promise<(address: string) => boolean> {
  const [range, used] = [await subnetOf(cluster), await usedAddresses(cluster)];
  return (address) => isWithin(range, address) && !used.includes(address);
}

/** @throws LabError if the cluster's network is full. */
export async function freeAddressOf(cluster: Cluster, name: string): Promise<string> {
  const range = await subnetOf(cluster);
  const address = freeAddress(range, [gatewayOf(range), ...(await usedAddresses(cluster))]);
  if (address === undefined)
    throw new LabError(`The network ${networkOf(cluster)}, ${range}, has no address left for ${name}.`);
  return address;
}

/**
 * Fixes every container's current address: Docker assigns addresses in the order in which containers start, so that after a
 * restart of Docker another container may get a server's. This replaces the interface under flannel's tunnel; if flannel has
 * created it already, K3s is restarted.
 */
export async function pinAll(cluster: Cluster, range: string): Promise<void> {
  const network = networkOf(cluster);
  const pin = async ({ id, role, networks }: Container) => {
    const { address = "", fixed } = networks.find((one) => one.network === network) ?? {};
    if (address === "" || fixed === address) return;
    const hasTunnel = async () => role === "server" && (await exists(id, "/run/flannel/subnet.env"));
    const mustRestart = await hasTunnel();
    if (mustRestart) await docker(["kill", id]);
    await docker(["network", "disconnect", network, id]);
    await docker(["network", "connect", "--ip", address, network, id]);
    if (mustRestart) await docker(["start", id]);
    // It may have created one just now.
    else if ((await hasTunnel()) && !(await exists(id, "/sys/class/net/flannel.1")))
      await docker(["restart", "--time", "1", id]);
  };
  await Promise.all((await attachedTo(network)).map(pin));
  console.log(`the addresses in ${range} are fixed`);
}

async function exists(id: string, path: string): Promise<boolean> {
  const answer = await tryDocker(["exec", id, "test", "-e", path]);
  if (!answer.failed) return true;
  // `test` fails without a message.
  const isNo = !answer.timedOut && /^\s*$|is not running|is paused|is restarting/.test(answer.stderr);
  if (isNo || isAbsent(answer)) return false;
  throw dockerError(answer, `docker exec ${id}`);
}
