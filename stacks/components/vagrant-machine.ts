import { local } from "@pulumi/command";
import * as pulumi from "@pulumi/pulumi";
import type { Machine } from "../config.ts";
import type { Observation } from "../observe.ts";
import type { Provider } from "../provider.ts";

/** What a `VagrantMachine` is made from. */
export interface VagrantMachineArgs {
  readonly machine: Machine;
  readonly provider: Provider;
  /** What was seen of the machine before this run; a machine that is gone is made anew. */
  readonly observed: Observation;
}

/**
 * One Vagrant machine with its address on `eth1`. `vagrant/machine.sh` does the work: it follows the one file of
 * machines, so that plain `vagrant` sees the same machine.
 *
 * CPU and memory change in place; another address, provider or a lost machine replaces it.
 */
export class VagrantMachine extends pulumi.ComponentResource {
  /** Changes when the machine was made anew: what was installed on the old one is gone. */
  readonly generation: pulumi.Output<string>;

  constructor(
    name: string,
    { machine, provider, observed }: VagrantMachineArgs,
    opts?: pulumi.ComponentResourceOptions,
  ) {
    super("k3s-lab:cluster:VagrantMachine", name, {}, opts);
    const command = new local.Command(
      name,
      {
        create: '"$K3S_LAB_ROOT/vagrant/machine.sh" up',
        update: '"$K3S_LAB_ROOT/vagrant/machine.sh" update',
        delete: '"$K3S_LAB_ROOT/vagrant/machine.sh" destroy',
        environment: {
          LAB_STACK: pulumi.getStack(),
          LAB_PROVIDER: provider,
          LAB_MACHINE: JSON.stringify(machine),
          LAB_GENERATION: observed.generation,
          LAB_BOOT: observed.boot,
        },
        triggers: [provider, machine.ip, observed.generation],
      },
      // Two machines cannot hold one name and address, not even for a moment.
      { parent: this, deleteBeforeReplace: true, customTimeouts: { create: "15m", update: "15m" } },
    );
    // What needs the machine waits for it; an update in place leaves the id, and so the generation, known in a preview.
    this.generation = command.id.apply(() => observed.generation);
    this.registerOutputs({ generation: this.generation });
  }
}
