import { local } from "@pulumi/command";
import * as pulumi from "@pulumi/pulumi";
import type { Machine } from "../config.ts";
import type { Observation } from "../observe.ts";
import type { Provider } from "../provider.ts";
import { sshConfig } from "../ssh-config.ts";

/** What a `LabMachine` is made from. */
export interface LabMachineArgs {
  readonly machine: Machine;
  readonly provider: Provider;
  /** What was seen of the machine before this run; a machine that is gone is made anew. */
  readonly observed: Observation;
}

/**
 * One machine with its address on the lab's interface, made by Vagrant or, with the provider `hosts`, looked over.
 * `vagrant/machine.sh` does the work: it follows the one file of machines, so that plain `vagrant` sees the same
 * machine. When it is up, its ssh configuration in `.lab/ssh` is all that anybody needs to know of it.
 *
 * CPU, memory and the way there change in place; another address, provider or host key, or a lost machine, replaces it.
 */
export class LabMachine extends pulumi.ComponentResource {
  /** Changes when the machine was made anew: what was installed on the old one is gone. */
  readonly generation: pulumi.Output<string>;

  constructor(
    name: string,
    { machine, provider, observed }: LabMachineArgs,
    opts?: pulumi.ComponentResourceOptions,
  ) {
    super("k3s-lab:cluster:LabMachine", name, {}, opts);
    const stack = pulumi.getStack();
    const command = new local.Command(
      name,
      {
        create: '"$K3S_LAB_ROOT/vagrant/machine.sh" up',
        update: '"$K3S_LAB_ROOT/vagrant/machine.sh" update',
        delete: '"$K3S_LAB_ROOT/vagrant/machine.sh" destroy',
        stdin: sshConfig(stack, machine, provider),
        environment: {
          LAB_STACK: stack,
          LAB_PROVIDER: provider,
          LAB_MACHINE: JSON.stringify(machine),
          LAB_GENERATION: observed.generation,
          LAB_BOOT: observed.boot,
        },
        triggers: [
          provider,
          machine.ip,
          observed.generation,
          ...(machine.ssh?.hostKey ? [machine.ssh.hostKey] : []),
        ],
      },
      // Two machines cannot hold one name and address, not even for a moment.
      { parent: this, deleteBeforeReplace: true, customTimeouts: { create: "30m", update: "30m" } },
    );
    // What needs the machine waits for it; an update in place leaves the id, and so the generation, known in a preview.
    this.generation = command.id.apply(() => observed.generation);
    this.registerOutputs({ generation: this.generation });
  }
}
