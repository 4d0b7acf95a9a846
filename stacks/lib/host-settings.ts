import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";
import { type Provider, providers } from "../model/provider.ts";
import { writeWhole } from "./files.ts";
import { labDir } from "./paths.ts";

/** A value of the wrong type was written by somebody else and is ignored. */
const note = <One extends z.ZodType>(one: One) => one.optional().catch(undefined);
const text = note(z.string().min(1));

const settingsSchema = z.object({
  /** The provider chosen for stacks whose file says `auto`; it stays until the lab is down. */
  autoProvider: note(z.enum(Object.keys(providers) as Provider[])),
  /** The Docker daemon's socket as a URL, unless it is Docker's default. */
  dockerHost: text,
  /** Tag of the image for machines of the `docker` provider. */
  machineImage: text,
  /** The Vagrant box for machines of the `libvirt` provider. */
  box: note(z.object({ name: z.string().min(1), version: z.string().min(1) })),
  /** libvirt's virtualization: `kvm`, or `qemu`, which emulates the processor. */
  libvirtDriver: text,
  /** Image of k3d's nodes and its helper container, if it was built here. Its tag begins with K3s's release. */
  k3dImage: text,
  /** Image of k3d's registry, if it was built here. */
  k3dRegistryImage: text,
  /** The database's image as it was built here, name and tag. */
  postgresImage: text,
  /** Whether k3d's load balancer is available; without it, the first server publishes the ports. */
  k3dLoadBalancer: note(z.boolean()),
  /** The K3s release that machines get unless their stack file names another: the one that was installed here. */
  k3sVersion: text,
  /** The machines' networks and addresses, which must bypass proxies. */
  networks: note(z.array(z.string().min(1))),
  /** How that K3s was obtained, such as `release`; it stays while the lab is up. */
  k3sWay: text,
});

/** What `lab up` found out about this computer, kept in `.lab/host.json` for `lab env` and `lab down`. */
export type HostSettings = {
  readonly [Key in keyof z.output<typeof settingsSchema>]?: NonNullable<z.output<typeof settingsSchema>[Key]>;
};

/** Invalid files that the user was already warned about. */
const told = new Set<string>();

const hostSettingsFile = join(labDir, "host.json");

/**
 * The settings of the last `lab up`; empty before the first. `lab up` can find them out again: an invalid file counts as
 * empty, and the next `lab up` replaces it.
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
  const { data = {} } = settingsSchema.safeParse(found);
  return Object.fromEntries(Object.entries(data).filter(([, value]) => value !== undefined));
}

/** Writes the settings atomically. */
export async function writeHostSettings(
  settings: HostSettings,
  file: string = hostSettingsFile,
): Promise<void> {
  await writeWhole(file, `${JSON.stringify(settings, null, 2)}\n`);
}

/** The environment for `docker` and `k3d`. @param dockerHost as in the settings. Default: what they find themselves. */
export function daemonVariables(dockerHost: string | undefined): {
  readonly DOCKER_HOST?: string;
  readonly DOCKER_SOCK?: string;
} {
  // k3d mounts DOCKER_SOCK into its helper; where the default is not there, Docker makes a folder of it, which stays. The
  // socket of a Docker in a virtual machine is in a home, and the default is in the machine.
  const [, socket] = /^unix:\/\/(?!\/(?:home|Users)\/)(\/.+)$/.exec(dockerHost ?? "") ?? [];
  return { ...(dockerHost && { DOCKER_HOST: dockerHost }), ...(socket && { DOCKER_SOCK: socket }) };
}
