import { local } from "@pulumi/command";
import * as pulumi from "@pulumi/pulumi";
import type { Machine } from "../config.ts";
import type { ClusterNode } from "../outputs.ts";
import { sshAlias } from "../ssh-config.ts";

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
  /** The machines of all servers; the first one starts the cluster. Several keep its data in etcd. */
  readonly servers: readonly Machine[];
  /** What must be there before anything is installed: every machine of the cluster. */
  readonly together: readonly pulumi.Resource[];
  /** Changes when the cluster was started anew: agents cannot follow into another. Default: none, this is a server. */
  readonly cluster?: pulumi.Input<string>;
}

/** Servers as `vagrant/k3s.sh` takes them: `name=address`, separated by spaces. */
export const serverList = (servers: readonly Machine[]): string =>
  servers.map(({ name, ip }) => `${name}=${ip}`).join(" ");

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
    const { machine, servers } = args;
    const stack = pulumi.getStack();
    const installation = args.cluster
      ? pulumi.interpolate`${args.generation}/${args.cluster}`
      : pulumi.output(args.generation);
    const node = new local.Command(
      name,
      {
        create: '"$K3S_LAB_ROOT/vagrant/k3s.sh" install',
        delete: '"$K3S_LAB_ROOT/vagrant/k3s.sh" uninstall',
        environment: {
          LAB_STACK: stack,
          NODE_NAME: machine.name,
          NODE_IP: machine.ip,
          NODE_ROLE: machine.role,
          NODE_INTERFACE: machine.interface ?? "",
          K3S_VERSION: args.version,
          K3S_ARGS: args.args.join(" "),
          SERVERS: serverList(servers),
        },
        stdin: pulumi.secret(args.token),
        triggers: [installation],
      },
      {
        parent: this,
        dependsOn: [...args.together],
        deleteBeforeReplace: true,
        customTimeouts: { create: "30m", update: "30m" },
      },
    );
    this.installation = pulumi.unsecret(pulumi.all([installation, node.id]).apply(([value]) => value));
    const { name: nodeName, role } = machine;
    this.details = this.installation.apply((id) => ({
      name: nodeName,
      role,
      address: `ssh://${sshAlias(stack, nodeName)}`,
      installation: id,
    }));
    this.registerOutputs({ details: this.details });
  }
}
