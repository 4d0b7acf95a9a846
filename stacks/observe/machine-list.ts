import { execa } from "execa";
import { copiesOf } from "../k3d/docker.ts";
import { LabError } from "../lib/errors.ts";

type PowerState = "running" | "paused" | "stopped";

export interface MachineObservation {
  /** `absent`: its provider's list does not contain it. `unreachable`: a host that did not answer. */
  readonly state: PowerState | "absent" | "unreachable";
  /**
   * Identifies the machine's creation: the mark written then, else its provider's id; for a host its /etc/machine-id. A new
   * value if the machine is absent.
   */
  readonly generation: string;
  /** What an update must repair, unique each time. Undefined: nothing. */
  readonly found?: string;
  readonly reason?: string;
}

/** A machine in a provider's list, whoever created it. */
export interface ListedMachine {
  /** The provider's own id, which is never reused. */
  readonly id: string;
  /** The provider's name for it, such as `k3s-lab-cluster-server`. */
  readonly name: string;
  readonly state: PowerState;
  /** Whether it is connected to the machines' network; always true for a provider that cannot disconnect one. */
  readonly connected: boolean;
  /**
   * The marks that the lab wrote when it created the machine: `id`, `stack`, `machine`, `ip`, `generation`, `checkout`.
   * Empty: it is not a lab's, or its creation was interrupted.
   */
  readonly labels: Readonly<Record<string, string>>;
}

/** Vagrant providers, which can list their machines. */
export type ListingProvider = "docker" | "libvirt" | "virtualbox";

/** The marks on a machine; the Vagrantfile writes them. */
const labelNames = ["id", "stack", "machine", "ip", "generation", "checkout"] as const;

/**
 * All machines of a provider, from complete lists: what is not listed is absent, in whatever language the provider's
 * messages are.
 * @param deadline milliseconds for each query. Default: 20,000.
 * @throws LabError where the provider gives no list, or a state that says neither that a machine runs nor that it does not.
 */
export const listMachines = (
  provider: ListingProvider,
  deadline?: number,
): Promise<readonly ListedMachine[]> => lists[provider](asker(deadline));

type Ask = (provider: string, program: string, args: readonly string[]) => Promise<string>;

const lists: Readonly<Record<ListingProvider, (ask: Ask) => Promise<readonly ListedMachine[]>>> = {
  docker: listContainers,
  libvirt: listDomains,
  virtualbox: listVirtualMachines,
};

/** Docker's container states: https://docs.docker.com/reference/cli/docker/container/ls/#filter */
const containerStates: Readonly<Record<string, PowerState>> = {
  running: "running",
  restarting: "running",
  paused: "paused",
  created: "stopped",
  exited: "stopped",
};

async function listContainers(ask: Ask): Promise<readonly ListedMachine[]> {
  const labels = labelNames.map((name) => `{{.Label "k3s-lab.${name}"}}`);
  const format = ["{{.ID}}", "{{.Names}}", "{{.State}}", "{{.Networks}}", ...labels].join("\t");
  const docker = (...args: string[]) => ask("Docker", "docker", args);
  const [text, copies] = await Promise.all([
    docker("ps", "--all", "--no-trunc", "--format", format),
    copiesOf((args) => docker(...args)),
  ]);
  return lines(text).map((line) => {
    const [id = "", name = "", state = "", networks = "", ...own] = line.split("\t");
    const values = copies.has(id) ? [] : own;
    return {
      id,
      name,
      state: lookUp(containerStates, state, () => isLabelled(values) && unclear("Docker", name, state)),
      // Docker's own, and the machines'.
      connected: networks.split(",").length > 1,
      labels: labelsOf(labelNames.map((label, index) => [label, values[index] ?? ""])),
    };
  });
}

const isLabelled = (values: readonly string[]): boolean => values.some((value) => value !== "");

/** libvirt's states in the C locale: `virshDomainStateToString` in libvirt's tools/virsh-domain-monitor.c. */
const domainStates: Readonly<Record<string, PowerState>> = {
  running: "running",
  idle: "running",
  paused: "paused",
  pmsuspended: "paused",
  "shut off": "stopped",
  crashed: "stopped",
};

const virsh = ["--connect", "qemu:///system", "--quiet"] as const;

async function listDomains(ask: Ask): Promise<readonly ListedMachine[]> {
  const asked = (...args: string[]) => ask("libvirt", "virsh", [...virsh, ...args]);
  const names = lines(await asked("list", "--all", "--name")).filter(isLabName);
  return Promise.all(
    names.map(async (name) => {
      const [id, state, description] = await Promise.all([
        asked("domuuid", name),
        asked("domstate", name),
        asked("desc", name),
      ]);
      return {
        id: id.trim(),
        name,
        state: lookUp(domainStates, state.trim(), () => unclear("libvirt", name, state.trim())),
        connected: true,
        // A folder's name may contain spaces.
        labels: labelsOfVirtual(
          name,
          [...description.matchAll(/\bk3s-lab\.(\w+)=(.*?)(?= k3s-lab\.|$)/gm)].map(([, key, value]) => [
            key,
            value,
          ]),
        ),
      };
    }),
  );
}

/** VirtualBox's states: `machineStateToName` in its src/VBox/Frontends/VBoxManage/VBoxManageInfo.cpp. */
const virtualMachineStates: Readonly<Record<string, PowerState>> = {
  running: "running",
  paused: "paused",
  poweroff: "stopped",
  saved: "stopped",
  aborted: "stopped",
  "aborted-saved": "stopped",
};

async function listVirtualMachines(ask: Ask): Promise<readonly ListedMachine[]> {
  const manage = (...args: string[]) => ask("VirtualBox", "VBoxManage", args);
  const all = [...(await manage("list", "vms")).matchAll(/^"(.*)" \{(.+)\}$/gm)];
  return Promise.all(
    all
      .filter(([, name = ""]) => isLabName(name) || name === inaccessible)
      .map(async ([, name = "", id = ""]) => {
        if (name === inaccessible)
          return { id, name, state: "stopped", connected: true, labels: {} } as const;
        const [info, data] = await Promise.all([
          manage("showvminfo", id, "--machinereadable"),
          manage("getextradata", id, "enumerate"),
        ]);
        const state = /^VMState="(.*)"$/m.exec(info)?.[1] ?? "";
        return {
          id,
          name,
          state: lookUp(virtualMachineStates, state, () => unclear("VirtualBox", name, state)),
          connected: true,
          labels: labelsOfVirtual(
            name,
            [...data.matchAll(/^Key: k3s-lab\.(\w+), Value: (.*)$/gm)].map(([, key, value]) => [key, value]),
          ),
        };
      }),
  );
}

/** VirtualBox's word for a machine whose files it cannot read, as on an unmounted disk: it has neither name nor labels. */
export const inaccessible = "<inaccessible>";

/** Only such machines can be a lab's or conflict with one. */
const isLabName = (name: string): boolean => name.startsWith("k3s-lab-");

const labelsOf = (
  pairs: readonly (readonly [string | undefined, string | undefined])[],
): Readonly<Record<string, string>> =>
  Object.fromEntries(pairs.filter(([key, value]) => key && value && value !== "<no value>"));

/** A clone of a virtual machine carries the same marks under another name: it belongs to the person who made it. */
function labelsOfVirtual(name: string, pairs: Parameters<typeof labelsOf>[0]): ReturnType<typeof labelsOf> {
  const labels = labelsOf(pairs);
  return name === machineName(labels.stack ?? "", labels.machine ?? "") ? labels : {};
}

/** Vagrant's name of a machine. */
export const machineName = (stack: string, machine: string): string => `k3s-lab-${stack}-${machine}`;

/**
 * A provider's current name of the virtual machine with this id; undefined if it has no such machine, or creates containers.
 * @throws LabError if the provider does not answer.
 */
export async function nameOfMachine(provider: ListingProvider, id: string): Promise<string | undefined> {
  const ask = asker();
  if (provider === "virtualbox") {
    const all = lines(await ask("VirtualBox", "VBoxManage", ["list", "vms"]));
    const name = all
      .flatMap((line) => (line.endsWith(` {${id}}`) ? line.slice(1, -id.length - 4) : []))
      .at(0);
    if (name === undefined || name === inaccessible) return name;
    // Vagrant sets name and marks only after it has created a machine.
    const data = await ask("VirtualBox", "VBoxManage", ["getextradata", id, "enumerate"]);
    return /^Key: k3s-lab\.machine,/m.test(data) ? name : undefined;
  }
  if (provider === "docker") return undefined;
  const all = lines(await ask("libvirt", "virsh", [...virsh, "list", "--all", "--uuid"]));
  return all.some((line) => line.trim() === id)
    ? (await ask("libvirt", "virsh", [...virsh, "domname", id])).trim()
    : undefined;
}

const lines = (text: string): string[] => text.split("\n").filter((line) => line.trim() !== "");

/** @param otherwise throws for an unknown word if that matters. */
function lookUp(
  states: Readonly<Record<string, PowerState>>,
  word: string,
  otherwise: () => unknown,
): PowerState {
  const state = Object.hasOwn(states, word) ? states[word] : undefined;
  if (state === undefined) otherwise();
  return state ?? "stopped";
}

function unclear(provider: string, name: string, state: string): never {
  throw new LabError(
    `The machine ${name} is in a state that cannot be changed: ${provider} says "${state}". Wait until that ends, or stop the machine, and try again.`,
  );
}

/** Queries in the C locale and with a deadline; a query without an answer says nothing about any machine. */
const asker =
  (deadline = 20_000): Ask =>
  async (provider, program, args) => {
    const { failed, timedOut, code, stdout, stderr, shortMessage } = await execa(program, args, {
      env: { LC_ALL: "C" },
      reject: false,
      timeout: deadline,
      stdin: "ignore",
    });
    if (!failed) return stdout;
    const said = stderr?.trim().split("\n").at(-1) || shortMessage;
    const reason = timedOut
      ? `no answer within ${deadline / 1000} s`
      : code === "ENOENT"
        ? `the program ${program} is not installed`
        : said;
    throw new LabError(
      `${provider} does not list the machines of this lab: ${reason}. They may be running, so nothing is touched. Check that ${provider} answers (\`${[program, ...args.slice(0, 1)].join(" ")}\`), or run \`scripts/lab up\`, which starts it.`,
    );
  };
