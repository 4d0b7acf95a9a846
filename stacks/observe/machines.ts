import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { execa } from "execa";
import { LabError, refusal } from "../lib/errors.ts";
import { ifThere } from "../lib/files.ts";
import { labId, lostId } from "../lib/lab-id.ts";
import { labDir, root, stateFile } from "../lib/paths.ts";
import { stateOf } from "../lib/state.ts";
import type { Provider } from "../model/provider.ts";
import { sshAlias, sshTo } from "../model/ssh-config.ts";
import { checkHosts, machineIdOf, mayHaveK3s } from "./hosts.ts";
import {
  inaccessible,
  type ListedMachine,
  type ListingProvider,
  listMachines,
  type MachineObservation,
  machineName,
  nameOfMachine,
} from "./machine-list.ts";
import { environmentOf } from "./recorded.ts";

/** The parts of a machine in the stack file that matter to existing ones. */
type WantedMachine = Parameters<typeof checkHosts>[1][number];

/**
 * Observes all machines of a stack: whether they exist, run, and were created by this stack. Changes nothing. The ids on a
 * machine decide; a name or an address that another machine has is refused.
 * @param now identifies this run's creations and starts. Default: the time.
 * @returns by the machine's name.
 * @throws LabError if the provider does not answer, or a machine is in the way; nothing was touched.
 */
export async function observeMachines(
  stack: string,
  provider: Provider,
  machines: readonly WantedMachine[],
  now: string = new Date().toISOString(),
): Promise<ReadonlyMap<string, MachineObservation>> {
  if (provider === "hosts") return checkHosts(stack, machines);
  const listed = await listMachines(provider);
  const lab = await labId();
  const seen = await Promise.all(
    machines.map(async (machine) => {
      const own = await ownMachine(listed, lab, stack, machine.name, provider);
      if (own === undefined) {
        await refuseOutOfSight(stack, machine.name, provider);
        refuseNameOfOthers(listed, stack, machine.name, provider);
        refuseAddressOfOtherLabs(listed, lab, machine);
      }
      refuseAddressOfOthers(listed, lab, stack, machine);
      return [machine.name, observed(own, now)] as const;
    }),
  );
  return new Map(seen);
}

function observed(own: ListedMachine | undefined, now: string): MachineObservation {
  if (own === undefined) return { state: "absent", generation: now, found: `absent at ${now}` };
  const { state, connected } = own;
  const generation = generationOf(own);
  if (state !== "running") return { state, generation, found: `${state} at ${now}` };
  return connected ? { state, generation } : { state, generation, found: `cut off at ${now}` };
}

/** A machine created by plain Vagrant carries no generation. */
const generationOf = ({ id, labels }: ListedMachine): string => labels.generation ?? id;

async function ownMachine(
  listed: readonly ListedMachine[],
  lab: string,
  stack: string,
  name: string,
  provider: ListingProvider,
): Promise<ListedMachine | undefined> {
  const marked = listed.find(
    ({ labels }) => labels.id === lab && labels.stack === stack && labels.machine === name,
  );
  if (marked) return marked;
  // An interrupted Vagrant may have created it without the marks.
  const note = join(labDir, stack, "vagrant", "machines", name, provider, "id");
  const noted = (await ifThere(readFile(note, "utf8"))) ?? "";
  const interrupted = listed.find(({ id, labels }) => labels.id === undefined && id === noted.trim());
  const called = interrupted?.name ?? (noted.trim() && (await nameOfMachine(provider, noted.trim())));
  const wanted = machineName(stack, name);
  // Its disk has the name that the next machine's would get.
  if (called && provider !== "docker" && called !== wanted && called !== inaccessible)
    throw new LabError(
      `${provider} now calls the machine ${name} ${called}: it was renamed, and the lab would take it for missing. Nothing was touched. Rename it back: ${provider === "libvirt" ? `virsh --connect qemu:///system domrename ${called} ${wanted}` : `VBoxManage modifyvm '${called}' --name ${wanted}`}`,
    );
  if (interrupted?.name === inaccessible)
    throw new LabError(
      `VirtualBox cannot read the files of the machine ${name}, {${interrupted.id}}, so nothing is touched. Mount the disk that holds them, or restore them (\`VBoxManage list vms\` shows it as ${inaccessible}), and try again; if they are lost for good, remove it: VBoxManage unregistervm ${interrupted.id}`,
    );
  return interrupted;
}

/**
 * Refuses to treat a machine as absent that accepts this lab's ssh key and presents the recorded host key: it runs, and the
 * provider's list is incomplete. VirtualBox lists machines per user, and each Docker daemon only its own. A machine of
 * another provider is not absent from this one: it is replaced, after a question.
 */
async function refuseOutOfSight(stack: string, name: string, provider: ListingProvider): Promise<void> {
  const alias = sshAlias(stack, name);
  const noted = (await ifThere(readFile(join(labDir, "ssh", alias, "known_hosts"), "utf8"))) ?? "";
  if (noted.trim() === "") return;
  const makers = (await stateOf(stack)).flatMap(({ inputs }) => {
    const { LAB_PROVIDER, LAB_MACHINE } = environmentOf(inputs);
    const isIt = LAB_PROVIDER && LAB_MACHINE && recordedMachine(LAB_MACHINE, stack).name === name;
    return isIt ? [LAB_PROVIDER] : [];
  });
  if (makers.length > 0 && !makers.includes(provider)) return;
  const options = ["StrictHostKeyChecking=yes", "ConnectTimeout=5", "ConnectionAttempts=1"];
  const { failed } = await execa(
    "ssh",
    [...options.flatMap((option) => ["-o", option]), ...sshTo(root, alias), "true"],
    { env: { K3S_LAB_ROOT: root }, reject: false, stdin: "ignore", timeout: 20_000 },
  );
  if (failed) return;
  const who =
    provider === "docker" ? "as the user, and with the Docker daemon (DOCKER_HOST)," : "as the user";
  throw new LabError(
    `${provider} lists no machine ${name} of this lab, but it answers over ssh with the host key recorded at its creation: it runs where this list does not show it. Nothing was touched. Run the same command ${who} that created it.`,
  );
}

function refuseNameOfOthers(
  listed: readonly ListedMachine[],
  stack: string,
  name: string,
  provider: ListingProvider,
): void {
  const taken = listed.find((one) => one.name === machineName(stack, name));
  if (taken === undefined) return;
  const { id, checkout } = taken.labels;
  if (id !== undefined && checkout === root) throw lostId(`The machine ${taken.name}`, id);
  const whose = id === undefined ? "which no lab created" : `created by ${labOf(taken)}`;
  throw refusal(
    `${provider} already has a machine ${taken.name}, ${whose}. Nothing was touched. Take its stack down where it was created, remove the machine yourself, or rename yours: choose another stack name (Pulumi.cluster-mine.yaml) or another machine name.`,
  );
}

function refuseAddressOfOtherLabs(
  listed: readonly ListedMachine[],
  lab: string,
  { name, ip }: WantedMachine,
): void {
  const holder = listed.find(({ labels }) => labels.id !== lab && labels.ip === ip);
  if (holder === undefined) return;
  throw refusal(
    `${name} has the address ${ip} in the stack file, which the machine ${holder.name} of ${labOf(holder)} uses. Run \`scripts/lab down\` there first, or choose other addresses here.`,
  );
}

const labOf = ({ labels: { checkout } }: ListedMachine): string =>
  checkout === undefined ? "another checkout's lab" : `the lab in ${checkout}`;

function refuseAddressOfOthers(
  listed: readonly ListedMachine[],
  lab: string,
  stack: string,
  { name, ip }: WantedMachine,
): void {
  const holder = listed.find(
    ({ labels }) =>
      labels.id === lab && labels.stack === stack && labels.ip === ip && labels.machine !== name,
  );
  if (holder === undefined) return;
  throw refusal(
    `${name} has the address ${ip} in the stack file, which the machine ${holder.labels.machine} of the stack "${stack}" still uses. A machine cannot be renamed in place, and two cannot swap addresses: give ${name} a free address, or first run \`scripts/lab up ${stack}\` with a file that has neither of the two.`,
  );
}

/** A machine in Pulumi's state: the inputs of its command. */
export interface RecordedMachine {
  /** LAB_STACK, LAB_PROVIDER, LAB_MACHINE and LAB_GENERATION among others; without the last, any generation counts. */
  readonly environment?: Readonly<Record<string, string>>;
}

/**
 * Whether a machine that Pulumi recorded exists: `absent` if it is gone, or another was created in its place. A caller that
 * asks before destroying it must take every other answer, `unreachable` too, for a yes.
 * @throws LabError if its provider cannot be queried: it may exist.
 */
export async function recordedMachineState({
  environment = {},
}: RecordedMachine): Promise<MachineObservation["state"]> {
  const { LAB_STACK = "", LAB_PROVIDER = "", LAB_MACHINE = "{}", LAB_GENERATION } = environment;
  const machine = recordedMachine(LAB_MACHINE, LAB_STACK);
  const isRecorded = (generation: string) => LAB_GENERATION === undefined || generation === LAB_GENERATION;
  if (LAB_PROVIDER === "hosts") {
    const id = machine.ip === undefined ? undefined : await machineIdOf(LAB_STACK, machine);
    if (id === undefined) return "unreachable";
    return isRecorded(id) ? "running" : "absent";
  }
  const provider = LAB_PROVIDER as ListingProvider;
  const listed = await listMachines(provider);
  const lab = await labId();
  const own = await ownMachine(listed, lab, LAB_STACK, machine.name, provider);
  const twin = listed.find(
    ({ labels }) =>
      LAB_GENERATION !== undefined &&
      labels.stack === LAB_STACK &&
      labels.machine === machine.name &&
      labels.generation === LAB_GENERATION,
  );
  if (own === undefined && twin?.labels.id !== undefined)
    throw lostId(`The machine ${twin.name}`, twin.labels.id);
  if (own === undefined) await refuseOutOfSight(LAB_STACK, machine.name, provider);
  return own !== undefined && (own.labels.id === undefined || isRecorded(generationOf(own)))
    ? own.state
    : "absent";
}

/** Whether a recorded host has K3s or its data; assumed if it cannot be reached. */
export const recordedHostMayHaveK3s = ({ environment = {} }: RecordedMachine): Promise<boolean> => {
  const { LAB_STACK = "", LAB_MACHINE = "{}" } = environment;
  return mayHaveK3s(LAB_STACK, recordedMachine(LAB_MACHINE, LAB_STACK));
};

function recordedMachine(text: string, stack: string): WantedMachine {
  try {
    return JSON.parse(text) as WantedMachine;
  } catch (cause) {
    throw new LabError(
      `Pulumi's state of the stack "${stack}" has an unreadable machine (${(cause as Error).message}): ${text}. Restore the previous state, ${stateFile(stack)}.bak.`,
      { cause },
    );
  }
}
