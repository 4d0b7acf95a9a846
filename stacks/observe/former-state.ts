import type { StateResource } from "../lib/state.ts";
import type { MachineObservation } from "./machine-list.ts";
import { isTime } from "./machines.ts";
import { environmentOf } from "./recorded.ts";

/** What triggers the replacement of a machine and of its node, as a former version of the lab recorded it. */
export interface FormerTriggers {
  readonly machine?: readonly string[];
  readonly node?: readonly string[];
}

/** The generation that the state has of a machine. */
export const recordedGeneration = (resources: readonly StateResource[], name: string): string | undefined =>
  environmentOf(commandOf(resources, "LabMachine", name)?.inputs).LAB_GENERATION;

/**
 * Triggers that stay as a former version recorded them, so that no upgrade of the lab itself replaces anything: of a
 * machine that is still the recorded one, by what can be told. Its triggers of a host were host, address and time; of a
 * node a single one.
 *
 * @param ip the address that the stack file gives the machine.
 */
export function formerTriggers(
  resources: readonly StateResource[],
  { name, ip }: { readonly name: string; readonly ip: string },
  { state, generation }: MachineObservation,
): FormerTriggers {
  const recorded = recordedGeneration(resources, name);
  const machine = triggersOf(resources, "LabMachine", name);
  const [provider, address, making] = machine;
  if (state === "absent" || making === undefined) return {};
  const isHost = provider === "hosts";
  const isSame = generation === recorded || (isHost && isTime(recorded) && address === ip);
  if (!isSame) return {};
  const node = triggersOf(resources, "K3sNode", name);
  const isFormer = node.length === 1 && node[0]?.startsWith(making);
  return { ...(isHost ? { machine } : {}), ...(isFormer ? { node } : {}) };
}

const commandOf = (
  resources: readonly StateResource[],
  component: string,
  name: string,
): StateResource | undefined =>
  resources.find(({ urn }) => urn.endsWith(`:${component}$command:local:Command::${name}`));

function triggersOf(resources: readonly StateResource[], component: string, name: string): readonly string[] {
  const triggers = commandOf(resources, component, name)?.inputs?.triggers;
  return Array.isArray(triggers) ? triggers.map(String) : [];
}
