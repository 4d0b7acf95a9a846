import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { Provider } from "../stacks/provider.ts";
import { labDir } from "./paths.ts";

/** What `lab up` found out about this computer, kept in `.lab/host.json` for `lab env` and `lab down`. */
export interface HostSettings {
  /** The provider that was chosen for stacks whose file says `auto`; it stays until the lab is down. */
  readonly autoProvider?: Provider;
  /** The Docker daemon's socket as a URL, where it is not Docker's own default. */
  readonly dockerHost?: string;
  /** Tag of the image that machines of the `docker` provider are made from. */
  readonly machineImage?: string;
  /** The Vagrant box that machines of the `libvirt` provider are made from. */
  readonly box?: { readonly name: string; readonly version: string };
  /** How libvirt runs machines: `kvm`, or `qemu`, which emulates the processor. */
  readonly libvirtDriver?: string;
  /** Image of k3d's nodes, where it was built here. */
  readonly k3dImage?: string;
  /** Image of k3d's helper container, where it was built here. */
  readonly k3dToolsImage?: string;
  /** Image of k3d's registry, where it was made here. */
  readonly k3dRegistryImage?: string;
  /** Whether k3d's load balancer is here; without, the first server answers in its place. */
  readonly k3dLoadBalancer?: boolean;
  /** The K3s release that machines get unless their stack file names another: the one that was installed here. */
  readonly k3sVersion?: string;
}

const file = join(labDir, "host.json");

/** The settings of the last `lab up`; empty before the first. */
export async function readHostSettings(): Promise<HostSettings> {
  try {
    return JSON.parse(await readFile(file, "utf8")) as HostSettings;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return {};
    throw error;
  }
}

export async function writeHostSettings(settings: HostSettings): Promise<void> {
  await writeFile(file, `${JSON.stringify(settings, null, 2)}\n`, { mode: 0o600 });
}
