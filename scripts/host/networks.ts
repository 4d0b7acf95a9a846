import { LabError } from "../../stacks/lib/errors.ts";
import { labId } from "../../stacks/lib/lab-id.ts";
import { overlap, rangeOf } from "./cidr.ts";
import { type Run, run as runHere } from "./commands.ts";
import { ownHost } from "./docker.ts";
import { type Route, routesHere } from "./routes.ts";

/** A network that this computer uses for something else than the lab. */
export interface TakenNetwork {
  /** In CIDR notation. */
  readonly network: string;
  /** Such as `the interface tun0`. */
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

/** How networks are looked for; tests pass their own. */
export interface NetworkOptions {
  readonly run?: Run;
  /** This checkout's lab. Default: as in `.lab/id`. */
  readonly id?: string;
}

const asks = { timeout: 15_000 } as const;

/**
 * What of this computer is in the way of a network of the lab's: interfaces, routes (a VPN has one) and Docker's networks.
 * The bridge of this lab's own machines is not, nor is one of Vagrant's that nobody uses, which it takes again.
 */
export async function takenNetworks(network: string, options: NetworkOptions = {}): Promise<TakenNetwork[]> {
  const { run = runHere, id = await labId() } = options;
  const parsed = async <T>(command: readonly string[]): Promise<readonly T[]> => {
    const { exitCode, stdout } = await run(command, asks);
    return exitCode === 0 && stdout.trim() !== "" ? (JSON.parse(stdout) as T[]) : [];
  };
  const [interfaces, routes, docker, libvirt] = await Promise.all([
    parsed<Interface>(["ip", "-json", "-4", "address", "show"]),
    routesHere(run),
    dockerNetworks(run, id),
    libvirtBridges(run),
  ]);
  const own = new Set([...libvirt, ...docker.filter(({ isOwn }) => isOwn).map(({ bridge }) => bridge)]);
  // VirtualBox takes a host-only interface again that has the address which it would give it.
  const isReused = (name: string, address: string) =>
    /^vboxnet\d+$/.test(name) && rangeOf(address)[0] === rangeOf(network)[0] + 1;
  const reused = new Set<string>();
  const taken: TakenNetwork[] = [];
  const add = (other: string, by: string) => {
    if (overlap(network, other)) taken.push({ network: other, by });
  };
  for (const { ifname, addr_info = [] } of interfaces)
    for (const { local, prefixlen } of addr_info)
      if (isReused(ifname, local)) reused.add(ifname);
      else if (!own.has(ifname)) add(`${local}/${prefixlen}`, `the interface ${ifname}`);
  // A blackhole leads nowhere: nothing is cut off.
  for (const route of routes)
    if (route.type !== "blackhole" && !own.has(route.dev ?? "") && !reused.has(route.dev ?? ""))
      add(route.dst, shownRoute(route));
  for (const { name, subnets, isOwn } of docker)
    if (!isOwn) for (const subnet of subnets) add(subnet, `Docker's network ${name}`);
  return taken;
}

const shownRoute = ({ type, dev, gateway }: Route): string =>
  type && type !== "unicast" ? `a route of type ${type}` : `a route by ${dev ?? gateway ?? "another table"}`;

/**
 * Refuses a network of the lab's that would cut this computer off from another of the same addresses, or be cut off by it.
 * @param key what names it in the stack file.
 * @throws LabError (exit code 2) with what uses it and a network that nothing here uses.
 */
export async function refuseOverlappingNetwork(
  network: string,
  { key = "k3s-lab:network", ...options }: NetworkOptions & { readonly key?: string } = {},
): Promise<void> {
  const taken = await takenNetworks(network, options);
  const [first] = taken;
  if (first === undefined) return;
  const free = await freeNetwork(options);
  const all = [...new Set(taken.map(({ network, by }) => `${by} (${network})`))].join(", ");
  throw new LabError(
    `${key} ${network} overlaps what this computer uses already: ${all}. ${free ? `Nothing here uses ${free}: take it, and addresses in it for the machines` : "Take another network"}, or end what uses this one.`,
    { exitCode: 2 },
  );
}

async function freeNetwork(options: NetworkOptions): Promise<string | undefined> {
  for (const third of [56, 142, 77, 199, 231]) {
    const network = `192.168.${third}.0/24`;
    if ((await takenNetworks(network, options)).length === 0) return network;
  }
  return undefined;
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

/** A network bears the mark of its lab; one of Vagrant's without a mark is ours where nobody else's container is in it. */
function isOwn({ Name, Labels, Containers }: DockerNetwork, id: string, own: ReadonlySet<string>): boolean {
  const mark = Labels?.["k3s-lab.id"];
  if (mark !== undefined) return mark === id;
  return (
    /^vagrant_network/.test(Name) && Object.keys(Containers ?? {}).every((container) => own.has(container))
  );
}

/** The bridges of the lab's networks in libvirt, which every checkout shares. */
async function libvirtBridges(run: Run): Promise<string[]> {
  const bridges: string[] = [];
  for (const name of ["k3s-lab", "k3s-lab-management"]) {
    const asked = await run(["virsh", "--connect", "qemu:///system", "--quiet", "net-info", name], asks);
    if (asked.ended === "missing") break;
    const [, bridge] = /^Bridge:\s+(\S+)/m.exec(asked.stdout) ?? [];
    if (bridge) bridges.push(bridge);
  }
  return bridges;
}
