import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { type Provider, providers } from "../model/provider.ts";
import { writeWhole } from "./files.ts";
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
  /** Image of k3d's nodes and its helper container, where it was built here. Its tag begins with K3s's release. */
  readonly k3dImage?: string;
  /** Image of k3d's registry, where it was made here. */
  readonly k3dRegistryImage?: string;
  /** The database's image as it was made here, its name and tag. */
  readonly postgresImage?: string;
  /** Whether k3d's load balancer is here; without, the first server answers in its place. */
  readonly k3dLoadBalancer?: boolean;
  /** The K3s release that machines get unless their stack file names another: the one that was installed here. */
  readonly k3sVersion?: string;
  /** The networks and addresses of the machines, which no proxy stands before. */
  readonly networks?: readonly string[];
  /** The way by which that K3s came, such as `release`; it stays while the lab is up. */
  readonly k3sWay?: string;
}

/** What each note must be; a note that is something else was written by somebody else and is left out. */
const isText = (value: unknown): boolean => typeof value === "string" && value !== "";
const isKind: { readonly [Key in keyof Required<HostSettings>]: (value: unknown) => boolean } = {
  autoProvider: (value) => isText(value) && Object.hasOwn(providers, value as string),
  dockerHost: isText,
  machineImage: isText,
  box: (value) => isObject(value) && isText(value.name) && isText(value.version),
  libvirtDriver: isText,
  k3dImage: isText,
  k3dRegistryImage: isText,
  postgresImage: isText,
  k3dLoadBalancer: (value) => typeof value === "boolean",
  k3sVersion: isText,
  k3sWay: isText,
  networks: (value) => Array.isArray(value) && value.every(isText),
};

const isObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === "object" && value !== null && !Array.isArray(value);

/** Files of which a person has read once that they cannot be understood. */
const told = new Set<string>();

const hostSettingsFile = join(labDir, "host.json");

/**
 * The settings of the last `lab up`; empty before the first. They are notes, which `lab up` can make again: a file that
 * cannot be understood counts as empty, and the next `lab up` writes a whole one.
 */
export async function readHostSettings(file: string = hostSettingsFile): Promise<HostSettings> {
  let found: unknown;
  try {
    found = JSON.parse(await readFile(file, "utf8"));
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ENOENT" && !told.has(file)) {
      told.add(file);
      process.stderr.write(
        `lab: ${file} cannot be read (${(error as Error).message}): lab up will write it again\n`,
      );
    }
    return {};
  }
  if (!isObject(found)) return {};
  const known = Object.entries(found).filter(([key, value]) => isKind[key as keyof HostSettings]?.(value));
  return Object.fromEntries(known);
}

/** Writes the settings whole or not at all. */
export async function writeHostSettings(
  settings: HostSettings,
  file: string = hostSettingsFile,
): Promise<void> {
  await writeWhole(file, `${JSON.stringify(settings, null, 2)}\n`);
}

/** What tells `docker` and `k3d` of a daemon. @param dockerHost as in the settings. Default: what they find themselves. */
export function daemonVariables(dockerHost: string | undefined): {
  readonly DOCKER_HOST?: string;
  readonly DOCKER_SOCK?: string;
} {
  // k3d mounts DOCKER_SOCK into its helper; where the default is not there, Docker makes a folder of it, which stays. The
  // socket of a Docker in a virtual machine is in a home, and the default is in the machine.
  const [, socket] = /^unix:\/\/(?!\/(?:home|Users)\/)(\/.+)$/.exec(dockerHost ?? "") ?? [];
  return { ...(dockerHost && { DOCKER_HOST: dockerHost }), ...(socket && { DOCKER_SOCK: socket }) };
}
