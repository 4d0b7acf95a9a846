import { LabError } from "../lib/errors.ts";
import { holds, type Network, parseNetwork, toText } from "../model/addresses.ts";

function networkIn(range: string): Network {
  const network = parseNetwork(range);
  if (network === undefined) throw new LabError(`The cluster's network ${range} is not an IPv4 network.`);
  return network;
}

/** The first address of a network: its bridge's. */
export const gatewayOf = (range: string): string => toText(networkIn(range).first + 1);

/** The address of an agent: counted from the network's end, so that agents that join in parallel need not coordinate. */
export const agentAddress = (range: string, index: number): string =>
  toText(networkIn(range).last - 1 - index);

export const isWithin = (range: string, address: string): boolean => holds(networkIn(range), address);

/** The lowest free address of a network; undefined if it is full. @param taken addresses in use. */
export function freeAddress(range: string, taken: readonly string[]): string | undefined {
  const { first, last } = networkIn(range);
  for (let number = first + 1; number < last; number++)
    if (!taken.includes(toText(number))) return toText(number);
  return undefined;
}
