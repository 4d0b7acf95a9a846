import { isIPv4 } from "node:net";

export interface Network {
  /** As it was written, such as 192.168.42.0/24. */
  readonly text: string;
  readonly first: number;
  readonly last: number;
  readonly bits: number;
  /** The same block without host bits; equal to `text` where it has none. */
  readonly canonical: string;
}

export const toNumber = (ip: string): number =>
  ip.split(".").reduce((sum, part) => sum * 256 + Number(part), 0);

export const toText = (address: number): string =>
  [24, 16, 8, 0].map((shift) => Math.floor(address / 2 ** shift) % 256).join(".");

/** @returns undefined when the text is no IPv4 network. */
export function parseNetwork(text: string): Network | undefined {
  const [, base = "", length = ""] = /^([\d.]+)\/(\d|[12]\d|3[0-2])$/.exec(text) ?? [];
  if (!isIPv4(base)) return undefined;
  const bits = Number(length);
  const size = 2 ** (32 - bits);
  const first = Math.floor(toNumber(base) / size) * size;
  return { text, first, last: first + size - 1, bits, canonical: `${toText(first)}/${bits}` };
}

const network = (text: string): Network => parseNetwork(text) as Network;

/** The block of a network, or of a single address, as a program prints it. */
export const blockOf = (text: string): Network => network(text.includes("/") ? text : `${text}/32`);

export const overlap = (one: Network, other: Network): boolean =>
  one.first <= other.last && other.first <= one.last;

export const holds = ({ first, last }: Network, ip: string): boolean => {
  const address = toNumber(ip);
  return first <= address && address <= last;
};

const unusable: readonly (readonly [Network, string])[] = [
  [network("0.0.0.0/8"), "not an address of a host"],
  [network("127.0.0.0/8"), "a loopback address"],
  [network("169.254.0.0/16"), "link-local"],
  [network("224.0.0.0/4"), "a multicast address"],
  [network("240.0.0.0/4"), "reserved"],
];

/** Why no machine can have this address; undefined where one can. */
export const whyUnusable = (ip: string): string | undefined =>
  unusable.find(([block]) => holds(block, ip))?.[1];

/** Private networks: RFC 1918, RFC 6598, RFC 2544. Anybody else's network would be unreachable while the lab is up. */
const privateNetworks = [
  "10.0.0.0/8",
  "172.16.0.0/12",
  "192.168.0.0/16",
  "100.64.0.0/10",
  "198.18.0.0/15",
].map(network);

export const isPrivate = ({ first, last }: Network): boolean =>
  privateNetworks.some((block) => block.first <= first && last <= block.last);

/** K3s's default networks for pods and Services. */
export const defaultPods = "10.42.0.0/16";
export const defaultServices = "10.43.0.0/16";

/** Vagrant's management network for libvirt's machines (eth0), as in the Vagrantfile. */
export const managementNetwork = network("192.168.119.0/24");

/** Networks that the lab's machines use besides the one in the stack file. */
export const machineNetworks: readonly (readonly [Network, string])[] = [
  [managementNetwork, "the management network of virtual machines"],
  [network("10.0.2.0/24"), "VirtualBox's NAT network"],
];
