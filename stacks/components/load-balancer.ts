import { local } from "@pulumi/command";
import * as pulumi from "@pulumi/pulumi";
import type { MachineObservation } from "../observe/machine-list.ts";
import { asRecorded, type LabMachine } from "./lab-machine.ts";

/** What a `LoadBalancer` is made from. */
export interface LoadBalancerArgs {
  /** The machine that it runs on, which is no node. */
  readonly machine: LabMachine;
  /** What was seen of that machine before this run. */
  readonly observed: MachineObservation;
  /** HAProxy's configuration. A new one is taken without ending a connection. */
  readonly config: string;
  /** What was seen to be wrong with HAProxy there, and is put right. Default: nothing is. */
  readonly found?: string | undefined;
}

/**
 * HAProxy on a machine, in front of the nodes: `vagrant/load-balancer.sh` does the work. It may be there before the nodes
 * are, and drops one that leaves before that one is touched.
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
          // On a machine that was recreated it is installed again.
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
