import { constants } from "node:fs";
import { access, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { execa } from "execa";
import type { ClusterConfig } from "./config.ts";

/** Who makes machines: a provider of Vagrant's, or somebody else before (`hosts`). */
export type Provider = Exclude<ClusterConfig["provider"], "auto">;

/** How a machine's state is asked for by the id that Vagrant noted, and what a running one is called. */
export interface MachineState {
  readonly command: (id: string) => readonly [string, ...string[]];
  readonly running: RegExp;
}

/** All that differs between providers once a machine is asked for; when it is up, nothing does. */
export interface ProviderTraits {
  /** Debian's packages that it needs on this computer. */
  readonly packages: readonly string[];
  /** Whether its machines, and their network, are on this computer. */
  readonly isHere: boolean;
  /** How it tells a machine's state; undefined where it did not make the machine. */
  readonly state?: MachineState;
  /** The private key that opens a machine, below `.lab`. A machine's own `ssh` in the stack file goes before it. */
  readonly key: (stack: string, machine: string) => string;
}

const labKey = () => "ssh/id_ed25519";

/** Vagrant puts a new key into a machine in place of the one that everybody has. */
const keyByVagrant = (provider: string) => (stack: string, machine: string) =>
  `${stack}/vagrant/machines/${machine}/${provider}/private_key`;

/** The table of providers. */
export const providers: Readonly<Record<Provider, ProviderTraits>> = {
  docker: {
    packages: ["vagrant"],
    isHere: true,
    state: {
      command: (id) => ["docker", "inspect", "--format", "{{.State.Status}}", id],
      running: /^running$/m,
    },
    key: labKey,
  },
  libvirt: {
    packages: ["vagrant", "vagrant-libvirt"],
    isHere: true,
    state: {
      command: (id) => ["virsh", "--connect", "qemu:///system", "domstate", id],
      running: /^running$/m,
    },
    key: keyByVagrant("libvirt"),
  },
  virtualbox: {
    packages: ["vagrant"],
    isHere: true,
    state: {
      command: (id) => ["VBoxManage", "showvminfo", id, "--machinereadable"],
      running: /^VMState="running"$/m,
    },
    key: keyByVagrant("virtualbox"),
  },
  hosts: { packages: [], isHere: false, key: labKey },
};

/** The provider that was chosen, and the sentence that says why. */
export interface ProviderChoice {
  readonly provider: Provider;
  readonly reason: string;
}

/** What can be found out about this computer; tests pass their own. */
export interface ProviderProbes {
  /** Why libvirt cannot run a KVM guest here, or undefined where it can. */
  readonly libvirt: () => Promise<string | undefined>;
  /** Why VirtualBox cannot run a guest here, or undefined where it can. */
  readonly virtualbox: () => Promise<string | undefined>;
}

/**
 * The provider to use: the one that the stack file names, or for `auto` real VMs where they work
 * (libvirt with KVM, then VirtualBox) and machines in containers everywhere else. Looks, changes nothing.
 */
export async function chooseProvider(
  wanted: ClusterConfig["provider"],
  probes: ProviderProbes = { libvirt: probeLibvirt, virtualbox: probeVirtualBox },
): Promise<ProviderChoice> {
  if (wanted !== "auto") return { provider: wanted, reason: "the stack file names it" };
  const libvirt = await probes.libvirt();
  if (libvirt === undefined) return { provider: "libvirt", reason: "KVM runs guests here" };
  const virtualbox = await probes.virtualbox();
  if (virtualbox === undefined)
    return { provider: "virtualbox", reason: `VirtualBox runs guests here, libvirt does not (${libvirt})` };
  return { provider: "docker", reason: `machines are containers here: ${libvirt}; ${virtualbox}` };
}

async function probeLibvirt(): Promise<string | undefined> {
  if (!(await works("virsh", ["--version"]))) return "libvirt is not installed";
  const plugins = await execa("vagrant", ["plugin", "list"], { reject: false });
  if (!plugins.stdout?.includes("vagrant-libvirt")) return "Vagrant's libvirt plugin is not installed";
  try {
    await access("/dev/kvm", constants.R_OK | constants.W_OK);
  } catch {
    return "/dev/kvm is missing or not yours to use";
  }
  return (await kvmBoots()) ? undefined : "/dev/kvm is there but boots no guest";
}

/**
 * Boots a 512-byte boot sector that asks QEMU's debug-exit device to end with a known status.
 * A /dev/kvm that merely opens says nothing: without nested virtualisation it exists and boots nothing.
 */
async function kvmBoots(): Promise<boolean> {
  const folder = await mkdtemp(join(tmpdir(), "k3s-lab-kvm-"));
  try {
    const sector = Buffer.alloc(512);
    // mov al, 0x10; mov dx, 0x501; out dx, al; hlt. QEMU ends with (0x10 << 1) | 1.
    Buffer.from([0xb0, 0x10, 0xba, 0x01, 0x05, 0xee, 0xf4]).copy(sector);
    sector.writeUInt16LE(0xaa55, 510);
    const image = join(folder, "boot.img");
    await writeFile(image, sector);
    const result = await execa(
      "qemu-system-x86_64",
      [
        "-accel",
        "kvm",
        "-m",
        "16",
        "-nodefaults",
        "-display",
        "none",
        "-device",
        "isa-debug-exit,iobase=0x501,iosize=1",
      ].concat(["-drive", `file=${image},format=raw`]),
      { reject: false, timeout: 5000, stdin: "ignore" },
    );
    return result.exitCode === 33;
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

async function probeVirtualBox(): Promise<string | undefined> {
  if (!(await works("VBoxManage", ["--version"]))) return "VirtualBox is not installed";
  return (await works("VBoxManage", ["list", "hostinfo"]))
    ? undefined
    : "VirtualBox's kernel driver does not answer";
}

async function works(command: string, args: readonly string[]): Promise<boolean> {
  const { failed } = await execa(command, args, { reject: false, timeout: 10_000, stdin: "ignore" });
  return !failed;
}
