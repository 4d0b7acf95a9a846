import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { execa } from "execa";
import { labDir, root } from "../scripts/paths.ts";
import { type MachineState, type Provider, providers } from "./provider.ts";
import { sshAlias, sshTo } from "./ssh-config.ts";

/** What a program knows of a machine before it runs; `@pulumi/command` has no `read` that could see it. */
export interface Observation {
  /** Names this making of the machine; a new value, never seen before, where the machine is gone. */
  readonly generation: string;
  /** Names this start of the machine; a new value where it is stopped. */
  readonly boot: string;
}

type PowerState = "running" | "stopped" | "absent";

/**
 * Looks at a machine of a stack: is it there, does it run? A host is there once it has been seen and its host key noted;
 * one that does not let us in counts as stopped, so that the next `up` looks it over and says why.
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
  const { state } = providers[provider];
  const alias = sshAlias(stack, name);
  const note = state
    ? join(labDir, stack, "vagrant", "machines", name, provider, "id")
    : join(labDir, "ssh", alias, "known_hosts");
  const id = await readFile(note, "utf8").catch(() => "");
  const look = () => (state ? powerState(id, state) : answers(alias));
  return observation(stack, name, id === "" ? "absent" : await look(), now);
}

/** What was noted of a machine when it was made and started, as far as that still holds. */
async function observation(
  stack: string,
  name: string,
  state: PowerState,
  now: string,
): Promise<Observation> {
  const noted = async (kind: string) => (await readNote(stack, name, kind)) ?? now;
  return {
    generation: state === "absent" ? now : await noted("generation"),
    boot: state === "running" ? await noted("boot") : now,
  };
}

const readNote = (stack: string, name: string, kind: string): Promise<string | undefined> =>
  readFile(join(labDir, stack, "machines", `${name}.${kind}`), "utf8").catch(() => undefined);

async function powerState(id: string, { command, running }: MachineState): Promise<PowerState> {
  const [file, ...args] = command(id.trim());
  const result = await execa(file, args, { reject: false, timeout: 20_000, stdin: "ignore" });
  if (result.failed) return "absent";
  return running.test(result.stdout) ? "running" : "stopped";
}

async function answers(alias: string): Promise<PowerState> {
  const { failed } = await execa("ssh", [...sshTo(root, alias), "true"], {
    env: { K3S_LAB_ROOT: root },
    reject: false,
    timeout: 20_000,
    stdin: "ignore",
  });
  return failed ? "stopped" : "running";
}
