import { local } from "@pulumi/command";
import * as pulumi from "@pulumi/pulumi";
import type { ClusterConfig, Machine } from "../model/config.ts";
import type { ClusterNode } from "../model/outputs.ts";
import { machineAddress, sshAlias } from "../model/ssh-config.ts";

interface K3sArgs {
  readonly machine: Machine;
  /** Changes when the machine was recreated; K3s is then installed there again. */
  readonly generation: pulumi.Input<string>;
  readonly token: pulumi.Input<string>;
  /** K3s configuration, as YAML; readable only by root on the machine. Default: none. */
  readonly secretConfig?: pulumi.Input<string>;
  /** K3s release, such as v1.25.4+k3s1. A new one is installed in place. */
  readonly version: string;
  /** Flags for `k3s server` or `k3s agent`. New ones are applied in place. */
  readonly args: readonly string[];
  /** The machines of all servers; the first one starts the cluster. Several servers keep its data in etcd. */
  readonly servers: readonly Machine[];
  /** What installs K3s; either gives the same node. Default: shell. */
  readonly provisioner?: ClusterConfig["provisioner"];
  /** Whether a load balancer is in front of the nodes, so that each node runs Traefik. Default: false. */
  readonly isBalanced?: boolean;
  /** What must exist before anything is installed: every machine of the cluster. */
  readonly together: readonly pulumi.Resource[];
}

export interface K3sNodeArgs extends K3sArgs {
  /** The observed fault to repair, such as "K3s is stopped". Default: none. */
  readonly found?: string;
  /** Why this agent's cluster is gone, so that the agent must be reinstalled for another. Default: it is not gone. */
  readonly lostCluster?: string;
}

/** Servers as `vagrant/k3s.sh` takes them: `name=address`, separated by spaces. */
export const serverList = (servers: readonly Machine[]): string =>
  servers.map(({ name, ip }) => `${name}=${ip}`).join(" ");

/** A resource is done, in a preview as in an update, when the engine returns its URN. */
export const isDone = (resource: pulumi.Resource): Promise<void> =>
  new Promise((resolve) => {
    resource.urn.apply(() => resolve());
  });

const variablesOf = ({ machine, version, args, servers, isBalanced }: K3sArgs): Record<string, string> => ({
  LAB_STACK: pulumi.getStack(),
  NODE_NAME: machine.name,
  NODE_IP: machine.ip,
  NODE_ROLE: machine.role,
  NODE_INTERFACE: machine.interface ?? "",
  K3S_VERSION: version,
  K3S_ARGS: args.join(" "),
  SERVERS: serverList(servers),
  ...(isBalanced && machine.role === "server" ? { TRAEFIK: "every-node" } : {}),
});

/** Flags in a form that Ansible, which takes an inventory's `{{` and `{#` for templates, turns into the flags. */
const untemplated = (flags: readonly string[]): string => flags.join(" ").replaceAll("{", "{{ '{' }}");

function environmentOf(args: K3sArgs): Record<string, string> {
  const node = variablesOf(args);
  if (args.provisioner !== "ansible") return node;
  const { name, role } = args.machine;
  const hosts = {
    [sshAlias(pulumi.getStack(), name)]: { node: { ...node, K3S_ARGS: untemplated(args.args) } },
  };
  return { ...node, INVENTORY: JSON.stringify({ [`${role}s`]: { hosts } }) };
}

/** The token, then the secret configuration encoded on one line, so that its line breaks do no harm. */
const secretsOf = ({ token, secretConfig = "" }: K3sArgs): pulumi.Output<string> =>
  pulumi.secret(
    pulumi
      .all([token, secretConfig])
      .apply(([first, second]) => `${first}\n${Buffer.from(second).toString("base64")}\n`),
  );

/**
 * K3s on a machine, installed by K3s's `install.sh`. A change or an observed fault runs the installer again in place;
 * deleting runs `k3s-uninstall.sh` or `k3s-agent-uninstall.sh`. A machine that is gone needs no uninstall.
 */
export class K3sNode extends pulumi.ComponentResource {
  /** Changes when K3s was reinstalled; known once the node is Ready. */
  readonly installation: pulumi.Output<string>;
  readonly details: pulumi.Output<ClusterNode>;
  /** Resolves when this run is done with the node, in a preview too. */
  readonly done: Promise<void>;

  constructor(name: string, args: K3sNodeArgs, opts?: pulumi.ComponentResourceOptions) {
    super("k3s-lab:cluster:K3sNode", name, {}, opts);
    const { machine, generation, found, lostCluster } = args;
    const now = new Date().toISOString();
    const node = new local.Command(
      name,
      {
        create: '"$K3S_LAB_ROOT/vagrant/k3s.sh" install',
        delete: '"$K3S_LAB_ROOT/vagrant/k3s.sh" uninstall',
        environment: { ...environmentOf(args), LAB_FOUND: found === undefined ? "" : `${found} at ${now}` },
        stdin: secretsOf(args),
        triggers: [generation, lostCluster === undefined ? "" : `${lostCluster} at ${now}`],
        addPreviousOutputInEnv: false,
      },
      {
        parent: this,
        dependsOn: [...args.together],
        deleteBeforeReplace: true,
        customTimeouts: { create: "30m", update: "30m" },
        // An observation is not desired state: while all is well, the last repair stays recorded.
        ignoreChanges: [
          ...(found === undefined ? ["environment.LAB_FOUND"] : []),
          ...(lostCluster === undefined ? ["triggers[1]"] : []),
        ],
      },
    );
    this.done = isDone(node);
    this.installation = pulumi.unsecret(
      pulumi.all([generation, node.id]).apply(([made, id]) => `${made}/${id}`),
    );
    const { name: nodeName, role } = machine;
    const stack = pulumi.getStack();
    this.details = node.id.apply(() => ({
      name: nodeName,
      role,
      address: machineAddress(stack, nodeName),
    }));
    this.registerOutputs({ details: this.details });
  }
}

/** Inputs of a `K3sStart`: the first server. */
export interface K3sStartArgs extends K3sArgs {
  /** Why the original cluster is gone for good, so that a new one is started. Default: it is not gone. */
  readonly lostCluster?: string;
}

/**
 * The start of a cluster: K3s on the first server, until others can join. All other nodes wait for this and not for each
 * other, so that they are installed in parallel however few resources Pulumi handles at a time. Later it does nothing.
 */
export class K3sStart extends pulumi.ComponentResource {
  /** The cluster's id: the SHA-256 of its certificate authority. */
  readonly cluster: pulumi.Output<string>;
  /** Resolves when others can join, in a preview too. */
  readonly done: Promise<void>;

  constructor(name: string, args: K3sStartArgs, opts?: pulumi.ComponentResourceOptions) {
    super("k3s-lab:cluster:K3sStart", name, {}, opts);
    const { lostCluster } = args;
    const start = new local.Command(
      name,
      {
        create: '"$K3S_LAB_ROOT/vagrant/k3s.sh" start',
        environment: {
          ...environmentOf(args),
          LAB_FOUND: lostCluster === undefined ? "" : `${lostCluster} at ${new Date().toISOString()}`,
        },
        stdin: secretsOf(args),
        addPreviousOutputInEnv: false,
      },
      {
        parent: this,
        dependsOn: [...args.together],
        customTimeouts: { create: "30m" },
        // Later changes belong to the node.
        ignoreChanges: lostCluster === undefined ? ["create", "environment", "stdin"] : [],
      },
    );
    this.done = isDone(start);
    this.cluster = pulumi.unsecret(start.stdout);
    this.registerOutputs({ cluster: this.cluster });
  }
}

export interface ClusterServersArgs {
  readonly servers: readonly Machine[];
  /** All nodes: a leaving node reads the list after it was written. */
  readonly nodes: readonly K3sNode[];
  /** Whether the written list is missing. */
  readonly isMissing: boolean;
}

/**
 * The list of servers that stay, for nodes that leave. It is written once all remaining servers know it. If all leave, it is
 * removed before the first node leaves, so that no leaving server is told of the others.
 */
export class ClusterServers extends pulumi.ComponentResource {
  constructor(name: string, args: ClusterServersArgs, opts?: pulumi.ComponentResourceOptions) {
    super("k3s-lab:cluster:ClusterServers", name, {}, opts);
    const { servers, nodes, isMissing } = args;
    new local.Command(
      name,
      {
        create: '"$K3S_LAB_ROOT/vagrant/k3s.sh" servers',
        delete: 'rm -f "$K3S_LAB_ROOT/.lab/$LAB_STACK/servers"',
        environment: {
          LAB_STACK: pulumi.getStack(),
          SERVERS: serverList(servers),
          LAB_FOUND: isMissing ? `missing at ${new Date().toISOString()}` : "",
        },
        addPreviousOutputInEnv: false,
      },
      { parent: this, dependsOn: [...nodes], ignoreChanges: isMissing ? [] : ["environment.LAB_FOUND"] },
    );
    this.registerOutputs({});
  }
}
