import { execa } from "execa";
import { kvmProblem } from "../lib/kvm.ts";
import { words } from "../lib/words.ts";
import type { ClusterConfig } from "./config.ts";

/** Who creates the machines: a Vagrant provider, or nobody, because they exist already (`hosts`). */
export type Provider = Exclude<ClusterConfig["provider"], "auto">;

/** All differences between providers before a machine is up; afterwards there are none. */
export interface ProviderTraits {
  /** Debian packages that it needs on this computer. */
  readonly packages: readonly string[];
  /** Whether its machines, and their network, are on this computer. */
  readonly isHere: boolean;
  /** The private key for its machines, below `.lab`. A machine's `ssh` in the stack file takes precedence. */
  readonly key: (stack: string, machine: string) => string;
}

const labKey = () => "ssh/id_ed25519";

/** Vagrant replaces its public default key in a machine with a new one. */
const keyByVagrant = (provider: string) => (stack: string, machine: string) =>
  `${stack}/vagrant/machines/${machine}/${provider}/private_key`;

export const providers: Readonly<Record<Provider, ProviderTraits>> = {
  docker: {
    packages: ["vagrant"],
    isHere: true,
    key: labKey,
  },
  libvirt: {
    packages: words(`
      vagrant vagrant-libvirt libvirt-daemon-system libvirt-clients dnsmasq-base iptables qemu-utils
      qemu-system-${process.arch === "arm64" ? "arm" : "x86"}`),
    isHere: true,
    key: keyByVagrant("libvirt"),
  },
  virtualbox: {
    packages: ["vagrant"],
    isHere: true,
    key: keyByVagrant("virtualbox"),
  },
  hosts: { packages: [], isHere: false, key: labKey },
};

/** The Debian packages that a stack's machines need on this computer. */
export const packagesOf = (
  provider: Provider,
  { provisioner }: Pick<ClusterConfig, "provisioner">,
): readonly string[] => [
  ...providers[provider].packages,
  ...["openssh-client", "iproute2"],
  ...(provisioner === "ansible" ? ["ansible-core"] : []),
];

/** The chosen provider, and the sentence that says why. */
export interface ProviderChoice {
  readonly provider: Provider;
  readonly reason: string;
}

/** Capability checks of this computer; tests pass their own. */
export interface ProviderProbes {
  /** Why libvirt cannot run a KVM guest here; undefined if it can. */
  readonly libvirt: () => Promise<string | undefined>;
  /** Why VirtualBox cannot run a guest here; undefined if it can. */
  readonly virtualbox: () => Promise<string | undefined>;
}

/**
 * The provider of a stack's machines, existing or planned; undefined if none was chosen yet.
 * @param settings what `lab up` found out about this computer.
 */
export const configuredProvider = (
  { provider }: Pick<ClusterConfig, "provider">,
  { autoProvider }: { readonly autoProvider?: Provider },
): Provider | undefined => (provider === "auto" ? autoProvider : provider);

/**
 * The provider to use: the one that the stack file names, or for `auto` real VMs where they work (libvirt with KVM, then
 * VirtualBox) and machines in containers everywhere else. Changes nothing.
 * @param recorded the provider of existing machines, which stays while the stack is up. Default: what `lab up` chose,
 * LAB_AUTO_PROVIDER.
 */
export async function chooseProvider(
  wanted: ClusterConfig["provider"],
  recorded?: string,
  probes: ProviderProbes = providerProbes,
): Promise<ProviderChoice> {
  if (wanted !== "auto") return { provider: wanted, reason: "as set in the stack file" };
  // `auto` never chooses hosts: a file that no longer names them asks for machines.
  const chosen = recorded === "hosts" ? undefined : (recorded ?? process.env.LAB_AUTO_PROVIDER);
  if (chosen !== undefined && Object.hasOwn(providers, chosen))
    return { provider: chosen as Provider, reason: "the lab is already up" };
  const libvirt = await probes.libvirt();
  if (libvirt === undefined) return { provider: "libvirt", reason: "KVM runs guests here" };
  const virtualbox = await probes.virtualbox();
  if (virtualbox === undefined)
    return { provider: "virtualbox", reason: `VirtualBox runs guests here, libvirt does not (${libvirt})` };
  return { provider: "docker", reason: `machines are containers here: ${libvirt}; ${virtualbox}` };
}

export const providerProbes: ProviderProbes = {
  libvirt: () => probeLibvirt(kvmProblem),
  virtualbox: probeVirtualBox,
};

/** The same, ignoring the results of earlier runs. */
export const freshProbes: ProviderProbes = {
  ...providerProbes,
  libvirt: () => probeLibvirt(() => kvmProblem({ again: true })),
};

async function probeLibvirt(askKvm: typeof kvmProblem): Promise<string | undefined> {
  if (!(await works("virsh", ["--version"]))) return "libvirt is not installed";
  const kvm = await askKvm();
  // Vagrant takes a second to answer.
  if (kvm !== undefined) return kvm;
  const { stdout = "" } = await execa("vagrant", ["plugin", "list"], { reject: false });
  return stdout.includes("vagrant-libvirt") ? undefined : "Vagrant's libvirt plugin is not installed";
}

async function probeVirtualBox(): Promise<string | undefined> {
  if (!(await works("VBoxManage", ["--version"]))) return "VirtualBox is not installed";
  if (!(await works("VBoxManage", ["list", "hostinfo"]))) return "VirtualBox's kernel driver does not answer";
  // VirtualBox for arm64 runs only arm64, and the box that the Vagrantfile pins is for x86-64.
  return process.arch === "x64"
    ? undefined
    : "the lab has no VirtualBox box for this computer's architecture";
}

async function works(command: string, args: readonly string[]): Promise<boolean> {
  const { failed } = await execa(command, args, { reject: false, timeout: 10_000, stdin: "ignore" });
  return !failed;
}
