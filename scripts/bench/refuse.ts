import { networkInterfaces } from "node:os";
import { refusal } from "../../stacks/lib/errors.ts";
import { root } from "../../stacks/lib/paths.ts";
import { isPortTaken } from "../../stacks/lib/ports.ts";
import { blockOf, holds } from "../../stacks/model/addresses.ts";
import { readStackFile } from "../../stacks/model/config.ts";
import { anyMachines } from "../lab.ts";
import { labsHere } from "../labs-here.ts";
import { addressOf, substrates } from "./substrates.ts";

/**
 * Refuses to run while a lab is up, in this checkout or another: the addresses and ports are the same.
 * @param verb the refused verb.
 * @param why the two conflict.
 * @throws LabError (exit code 2) when there is one.
 */
export async function refuseWhileUp(
  verb: string,
  why = "it would answer instead of the one being measured",
): Promise<void> {
  const refuse = (sign: string, down: string) => {
    throw refusal(
      `A lab is up (${sign}), and \`lab ${verb}\` cannot run beside it: ${why}. Run \`${down}\` in its checkout first.`,
    );
  };
  const [found] = await labsHere();
  if (found) refuse(found, "scripts/lab down");
  const { network } = await readStackFile("cluster", root);
  const sign = (await anyMachines()) ? "this checkout has machines or nodes" : networkInUse(network);
  if (sign) refuse(sign, "scripts/lab down");
  const address = await addressOf(substrates.k3d);
  const [host = "", port = ""] = address.split(":");
  if (await isPortTaken(Number(port), host))
    refuse(`a program listens on ${address}`, `scripts/lab down ${substrates.k3d.stacks.join(" ")}`);
}

export function networkInUse(network: string, interfaces = networkInterfaces()): string | undefined {
  const block = blockOf(network);
  for (const [name, addresses = []] of Object.entries(interfaces))
    for (const { address, family } of addresses)
      if (family === "IPv4" && holds(block, address)) return `the interface ${name} has ${address}`;
  return undefined;
}
