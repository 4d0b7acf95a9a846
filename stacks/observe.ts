import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { execa } from "execa";
import { labDir } from "../scripts/paths.ts";
import type { Provider } from "./provider.ts";

/** What a program knows of a machine before it runs; `@pulumi/command` has no `read` that could see it. */
export interface Observation {
  /** Names this making of the machine; a new value, never seen before, where the machine is gone. */
  readonly generation: string;
  /** Names this start of the machine; a new value where it is stopped. */
  readonly boot: string;
}

type PowerState = "running" | "stopped" | "absent";

/** How each provider tells a machine's state by its id. Looks, changes nothing. */
const askers: Record<
  Provider,
  { readonly command: (id: string) => readonly [string, ...string[]]; readonly running: RegExp }
> = {
  docker: {
    command: (id) => ["docker", "inspect", "--format", "{{.State.Status}}", id],
    running: /^running$/m,
  },
  libvirt: {
    command: (id) => ["virsh", "--connect", "qemu:///system", "domstate", id],
    running: /^running$/m,
  },
  virtualbox: {
    command: (id) => ["VBoxManage", "showvminfo", id, "--machinereadable"],
    running: /^VMState="running"$/m,
  },
};

/**
 * Looks at a machine of a stack: is it there, does it run?
 *
 * `vagrant/machine.sh` writes down the generation that it made and the boot that it started. While the machine is
 * there those come back unchanged, so an `up` without a change does nothing.
 *
 * @param now names what is to be made or started now. Default: the time.
 */
export async function observeMachine(
  stack: string,
  name: string,
  provider: Provider,
  now: string = new Date().toISOString(),
): Promise<Observation> {
  const folder = join(labDir, stack);
  const state = await powerState(join(folder, "vagrant", "machines", name, provider, "id"), provider);
  const noted = (kind: string) =>
    readFile(join(folder, "machines", `${name}.${kind}`), "utf8").catch(() => now);
  return {
    generation: state === "absent" ? now : await noted("generation"),
    boot: state === "running" ? await noted("boot") : now,
  };
}

async function powerState(idFile: string, provider: Provider): Promise<PowerState> {
  const id = await readFile(idFile, "utf8").catch(() => "");
  if (id === "") return "absent";
  const { command, running } = askers[provider];
  const [file, ...args] = command(id.trim());
  const result = await execa(file, args, { reject: false, timeout: 20_000, stdin: "ignore" });
  if (result.failed) return "absent";
  return running.test(result.stdout) ? "running" : "stopped";
}
