import { local } from "@pulumi/command";
import * as pulumi from "@pulumi/pulumi";
import type { Machine } from "../config.ts";
import type { ClusterNode } from "../outputs.ts";

/** What a `K3sNode` is made from. */
export interface K3sNodeArgs {
  /** The machine that K3s is installed on. */
  readonly machine: Machine;
  /** Changes when the machine was made anew; K3s is then installed anew. */
  readonly generation: pulumi.Input<string>;
  /** The secret that joins nodes to the cluster. */
  readonly token: pulumi.Input<string>;
  /** K3s release, such as v1.25.4+k3s1. A new one is installed in place. */
  readonly version: string;
  /** Flags for `k3s server` or `k3s agent`. New ones are applied in place. */
  readonly args: readonly string[];
  /** For an agent: the machine of the server it joins, and waits for. Default: none, this node is the server. */
  readonly server?: { readonly machine: Machine; readonly generation: pulumi.Input<string> };
}

/**
 * K3s on a machine, by K3s's own `install.sh`. Creating installs, a change runs the installer again in place, and
 * deleting runs `k3s-uninstall.sh` or `k3s-agent-uninstall.sh`; a machine that is gone needs no uninstalling.
 */
export class K3sNode extends pulumi.ComponentResource {
  /** Changes when K3s was installed anew; known once the node is Ready. */
  readonly installation: pulumi.Output<string>;
  /** The node as the stack exports it. */
  readonly details: pulumi.Output<ClusterNode>;

  constructor(name: string, args: K3sNodeArgs, opts?: pulumi.ComponentResourceOptions) {
    super("k3s-lab:cluster:K3sNode", name, {}, opts);
    const { machine, server } = args;
    // An agent cannot follow its server into a new cluster: it is installed anew with it.
    const installation = server
      ? pulumi.interpolate`${args.generation}/${server.generation}`
      : pulumi.output(args.generation);
    const node = new local.Command(
      name,
      {
        create: '"$K3S_LAB_ROOT/vagrant/k3s.sh" install',
        delete: '"$K3S_LAB_ROOT/vagrant/k3s.sh" uninstall',
        environment: {
          LAB_STACK: pulumi.getStack(),
          NODE_NAME: machine.name,
          NODE_IP: machine.ip,
          NODE_ROLE: machine.role,
          K3S_VERSION: args.version,
          K3S_ARGS: args.args.join(" "),
          ...(server ? { SERVER_IP: server.machine.ip } : {}),
        },
        stdin: pulumi.secret(args.token),
        triggers: [installation],
      },
      { parent: this, deleteBeforeReplace: true, customTimeouts: { create: "15m", update: "15m" } },
    );
    this.installation = pulumi.unsecret(pulumi.all([installation, node.id]).apply(([value]) => value));
    const { name: nodeName, role, ip } = machine;
    this.details = this.installation.apply((id) => ({
      name: nodeName,
      role,
      address: `ssh://${ip}`,
      installation: id,
    }));
    this.registerOutputs({ details: this.details });
  }
}
