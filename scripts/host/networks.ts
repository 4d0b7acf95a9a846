import { LabError, refusal } from "../../stacks/lib/errors.ts";
import { labId } from "../../stacks/lib/lab-id.ts";
import { blockOf, overlap } from "../../stacks/model/addresses.ts";
import { lastLines, type Run, run as runHere } from "./commands.ts";
import { ownHost } from "./own-docker.ts";
import { type Route, routesHere } from "./routes.ts";

/** A network that this computer uses for something else: in CIDR notation, and its user, such as `the interface tun0`. */
interface TakenNetwork {
  readonly network: string;
  readonly by: string;
}

interface DockerNetwork {
  readonly Id: string;
  readonly Name: string;
  readonly IPAM?: { readonly Config?: readonly { readonly Subnet?: string }[] | null };
  readonly Options?: Readonly<Record<string, string>> | null;
  readonly Labels?: Readonly<Record<string, string>> | null;
  readonly Containers?: Readonly<Record<string, unknown>> | null;
}

interface Interface {
  readonly ifname: string;
  readonly addr_info?: readonly { readonly local: string; readonly prefixlen: number }[];
}

export interface NetworkOptions {
  readonly run?: Run;
  /** This checkout's lab. Default: as in `.lab/id`. */
  readonly id?: string;
}

const asks = { timeout: 15_000 } as const;

/**
 * What on this computer conflicts with the lab's networks: interfaces, routes (such as a VPN's) and Docker's networks.
 * The bridge of this lab's own machines does not conflict, nor does an unused one of Vagrant's, which Vagrant reuses.
 */
export async function networksInUse({
  run = runHere,
  id,
}: NetworkOptions = {}): Promise<(network: string) => readonly TakenNetwork[]> {
  const parsed = async <T>(command: readonly string[]): Promise<readonly T[]> => {
    const { exitCode, stdout, stderr } = await run(command, asks);
    if (exitCode !== 0)
      throw new LabError(`The addresses of this computer cannot be read: ${lastLines(stderr, 1)}`);
    return JSON.parse(stdout.trim() || "[]") as T[];
  };
  const [interfaces, routes, docker, libvirt] = await Promise.all([
    parsed<Interface>(["ip", "-json", "-4", "address", "show"]),
    routesHere(run),
    dockerNetworks(run, id ?? (await labId())),
    libvirtBridges(run),
  ]);
  const own = new Set([...libvirt, ...docker.filter(({ isOwn }) => isOwn).map(({ bridge }) => bridge)]);
  const uses = [
    ...interfaces.flatMap(({ ifname: dev, addr_info = [] }) =>
      addr_info.map(({ local, prefixlen }) => {
        return { dev, network: `${local}/${prefixlen}`, by: `the interface ${dev}` };
      }),
    ),
    // A blackhole route leads nowhere: nothing can be cut off.
    ...routes
      .filter(({ type }) => type !== "blackhole")
      .map((route) => ({ dev: route.dev ?? "", network: route.dst, by: shownRoute(route) })),
    ...docker.flatMap(({ name, bridge: dev, subnets }) =>
      subnets.map((network) => ({ dev, network, by: `Docker's network ${name}` })),
    ),
  ].filter(({ dev }) => !own.has(dev));
  return (network) => {
    // VirtualBox reuses a host-only interface that already has the address it would assign.
    const isReused = ({ ifname, addr_info = [] }: Interface) =>
      /^vboxnet\d+$/.test(ifname) &&
      addr_info.some(({ local }) => blockOf(local).first === blockOf(network).first + 1);
    const reused = interfaces.filter(isReused).map(({ ifname }) => ifname);
    return uses.filter((use) => overlap(blockOf(network), blockOf(use.network)) && !reused.includes(use.dev));
  };
}

const shownRoute = ({ type, dev, gateway }: Route): string =>
  type && type !== "unicast" ? `a route of type ${type}` : `a route by ${dev ?? gateway ?? "another table"}`;

/**
 * Refuses a lab network that overlaps one that this computer already uses: one would cut off the other.
 * @throws LabError (exit code 2) with the other's user and a free network.
 */
export async function refuseOverlappingNetwork(network: string, options?: NetworkOptions): Promise<void> {
  const takenBy = await networksInUse(options);
  const taken = takenBy(network);
  if (taken.length === 0) return;
  const others = [56, 142, 77, 199, 231].map((third) => `192.168.${third}.0/24`);
  const free = others.find((other) => takenBy(other).length === 0);
  const all = [...new Set(taken.map(({ network, by }) => `${by} (${network})`))].join(", ");
  throw refusal(
    `k3s-lab:network ${network} overlaps networks that this computer already uses: ${all}. ${free ? `${free} is free: use it, with addresses in it for the machines` : "Use another network"}, or stop what uses this one.`,
  );
}

async function dockerNetworks(run: Run, id: string) {
  for (const host of [[], ["--host", ownHost]]) {
    const docker = ["docker", ...host];
    const listed = await run([...docker, "network", "ls", "--quiet", "--no-trunc"], asks);
    const ids = listed.stdout.split("\n").filter(Boolean);
    if (listed.exitCode !== 0 || ids.length === 0) continue;
    const mine = ["ps", "--all", "--quiet", "--no-trunc", "--filter", `label=k3s-lab.id=${id}`];
    const [inspected, containers] = await Promise.all([
      run([...docker, "network", "inspect", ...ids], asks),
      run([...docker, ...mine], asks),
    ]);
    const own = new Set(containers.stdout.split("\n").filter(Boolean));
    return (JSON.parse(inspected.stdout || "[]") as DockerNetwork[]).map((network) => ({
      name: network.Name,
      subnets: (network.IPAM?.Config ?? []).flatMap(({ Subnet }) => (Subnet?.includes(".") ? [Subnet] : [])),
      bridge: network.Options?.["com.docker.network.bridge.name"] ?? `br-${network.Id.slice(0, 12)}`,
      isOwn: isOwn(network, id, own),
    }));
  }
  return [];
}

/** A network carries its lab's label; an unlabelled one of Vagrant's is ours if only our containers are in it. */
function isOwn({ Name, Labels, Containers }: DockerNetwork, id: string, own: ReadonlySet<string>): boolean {
  const mark = Labels?.["k3s-lab.id"];
  if (mark !== undefined) return mark === id;
  return (
    /^vagrant_network/.test(Name) && Object.keys(Containers ?? {}).every((container) => own.has(container))
  );
}

/** The bridges of the lab's networks in libvirt, which every checkout shares. */
async function libvirtBridges(run: Run): Promise<string[]> {
  const ask = async (name: string) =>
    await run(["virsh", "--connect", "qemu:///system", "--quiet", "net-info", name], asks);
  const asked = await Promise.all(["k3s-lab", "k3s-lab-management"].map(ask));
  return asked.flatMap(({ stdout }) => /^Bridge:\s+(\S+)/m.exec(stdout)?.[1] ?? []);
}
