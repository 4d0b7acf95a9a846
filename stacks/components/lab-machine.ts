import { local } from "@pulumi/command";
import * as pulumi from "@pulumi/pulumi";
import type { LoadBalancerMachine, Machine } from "../model/config.ts";
import type { Provider } from "../model/provider.ts";
import { sshConfig } from "../model/ssh-config.ts";
import type { MachineObservation } from "../observe/machine-list.ts";

/** What a `LabMachine` is made from. */
export interface LabMachineArgs {
  readonly machine: Machine | LoadBalancerMachine;
  readonly provider: Provider;
  /** The machines' network, such as 192.168.42.0/24. */
  readonly network: string;
  /** What was seen of the machine before this run; a machine that is gone is recreated. */
  readonly observed: MachineObservation;
}

/**
 * One machine with its address on the lab's interface, made by `vagrant/machine.sh` or, with the provider `hosts`, checked.
 * All that destroying it takes is recorded, so that the stack file need not name it any more. Its ssh configuration in
 * `.lab/ssh` is all that others need to know of it.
 *
 * CPU, memory and the way there change in place; a stopped, paused or cut-off machine is repaired. A lost machine, another
 * provider or another address replaces it. A host is its /etc/machine-id: keys, names and addresses are only ways to it.
 */
export class LabMachine extends pulumi.ComponentResource {
  /** Changes when the machine was recreated: what was installed on the old one is gone. */
  readonly generation: pulumi.Output<string>;

  constructor(
    name: string,
    { machine, provider, network, observed }: LabMachineArgs,
    opts?: pulumi.ComponentResourceOptions,
  ) {
    super("k3s-lab:cluster:LabMachine", name, {}, opts);
    const stack = pulumi.getStack();
    if (observed.state === "unreachable")
      pulumi.log.warn(`the host ${name} ${observed.reason}; nothing changes on it in this run`);
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
          // What its node is marked with is K3s's.
          LAB_MACHINE: JSON.stringify({ ...machine, nodeFlags: undefined }),
          LAB_NETWORK: network,
          LAB_GENERATION: observed.generation,
          LAB_FOUND: observed.found ?? "",
        },
        triggers: [provider, ...(provider === "hosts" ? [] : [machine.ip]), observed.generation],
        addPreviousOutputInEnv: false,
      },
      {
        parent: this,
        // Two machines cannot hold one name and address, not even for a moment.
        deleteBeforeReplace: true,
        customTimeouts: { create: "30m", update: "30m" },
        // While nothing is to be put right, what was put right last stays recorded.
        ignoreChanges:
          observed.state === "unreachable"
            ? everyInput
            : observed.found === undefined
              ? ["environment.LAB_FOUND"]
              : [],
      },
    );
    // What needs the machine waits for it; an update in place leaves the id, and so the generation, known in a preview.
    this.generation = command.id.apply(() => observed.generation);
    this.registerOutputs({ generation: this.generation });
  }
}

const everyInput = [
  ...["create", "update", "delete", "stdin", "environment", "triggers"],
  ...["interpreter", "dir", "logging", "assetPaths", "archivePaths", "addPreviousOutputInEnv"],
];

/**
 * Options that leave a component's resources as they were recorded: for what is on a host that does not answer. One that
 * was never made is made all the same, and fails with what is wrong.
 */
export const asRecorded: pulumi.ComponentResourceOptions = {
  transforms: [({ props, opts }) => ({ props, opts: { ...opts, ignoreChanges: everyInput } })],
};
