import { local } from "@pulumi/command";
import * as pulumi from "@pulumi/pulumi";
import type { MachineObservation } from "../observe/machine-list.ts";
import { asRecorded, type LabMachine } from "./lab-machine.ts";

export interface LoadBalancerArgs {
  /** The machine that it runs on, which is not a node. */
  readonly machine: LabMachine;
  /** The machine's state before this run. */
  readonly observed: MachineObservation;
  /** HAProxy's configuration. A change is applied without dropping a connection. */
  readonly config: string;
  /** The observed fault of HAProxy to repair. Default: none. */
  readonly found?: string | undefined;
}

/**
 * HAProxy on a machine in front of the nodes, installed by `vagrant/load-balancer.sh`. It may exist before the nodes do, and
 * drops a leaving node before that node is touched.
 */
export class LoadBalancer extends pulumi.ComponentResource {
  constructor(name: string, args: LoadBalancerArgs, opts?: pulumi.ComponentResourceOptions) {
    const isReached = args.observed.state !== "unreachable";
    super("k3s-lab:cluster:LoadBalancer", name, {}, pulumi.mergeOptions(opts, isReached ? {} : asRecorded));
    const { machine, config, found } = args;
    new local.Command(
      `${name}-haproxy`,
      {
        create: '"$K3S_LAB_ROOT/vagrant/load-balancer.sh" install',
        delete: '"$K3S_LAB_ROOT/vagrant/load-balancer.sh" remove',
        stdin: config,
        environment: {
          LAB_STACK: pulumi.getStack(),
          NODE_NAME: name,
          // A recreated machine needs a new installation.
          MACHINE_GENERATION: machine.generation,
          LAB_FOUND: found === undefined ? "" : `${found} at ${new Date().toISOString()}`,
        },
        addPreviousOutputInEnv: false,
      },
      {
        parent: this,
        dependsOn: [machine],
        deleteBeforeReplace: true,
        customTimeouts: { create: "15m", update: "15m" },
        ignoreChanges: found === undefined ? ["environment.LAB_FOUND"] : [],
      },
    );
    this.registerOutputs({});
  }
}
