import { local } from "@pulumi/command";
import * as pulumi from "@pulumi/pulumi";
import type { LoadBalancerMachine, Machine } from "../model/config.ts";
import type { Provider } from "../model/provider.ts";
import { sshConfig } from "../model/ssh-config.ts";
import type { MachineObservation } from "../observe/machine-list.ts";

export interface LabMachineArgs {
  readonly machine: Machine | LoadBalancerMachine;
  readonly provider: Provider;
  /** The machines' network, such as 192.168.42.0/24. */
  readonly network: string;
  /** The machine's state before this run; a missing machine is recreated. */
  readonly observed: MachineObservation;
}

/**
 * One machine with its address on the lab's network, created by `vagrant/machine.sh` or, with the provider `hosts`, checked.
 * Everything that its deletion needs is recorded, so that the stack file need not name it any more. Others need only its ssh
 * configuration in `.lab/ssh`.
 *
 * CPU, memory and connection settings change in place; a stopped, paused or disconnected machine is repaired. A lost
 * machine, another provider or another address replaces it. A host's identity is its /etc/machine-id: keys, names and
 * addresses are only ways to reach it.
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
          // K3s applies the node's labels and taints.
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
        // Two machines cannot hold the same name and address, not even for a moment.
        deleteBeforeReplace: true,
        customTimeouts: { create: "30m", update: "30m" },
        // While there is nothing to repair, the last repair stays recorded.
        ignoreChanges:
          observed.state === "unreachable"
            ? everyInput
            : observed.found === undefined
              ? ["environment.LAB_FOUND"]
              : [],
      },
    );
    // Dependents wait for the machine; an update in place keeps the id, and so the generation is known in a preview.
    this.generation = command.id.apply(() => observed.generation);
    this.registerOutputs({ generation: this.generation });
  }
}

const everyInput = [
  ...["create", "update", "delete", "stdin", "environment", "triggers"],
  ...["interpreter", "dir", "logging", "assetPaths", "archivePaths", "addPreviousOutputInEnv"],
];

/**
 * Options that keep a component's resources as recorded, for a host that does not answer. A resource that was never created
 * is created all the same, and fails with the cause.
 */
export const asRecorded: pulumi.ComponentResourceOptions = {
  transforms: [({ props, opts }) => ({ props, opts: { ...opts, ignoreChanges: everyInput } })],
};
