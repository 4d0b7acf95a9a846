import { local } from "@pulumi/command";
import * as pulumi from "@pulumi/pulumi";
import type { Cluster, ServersInput } from "../k3d/cluster.ts";
import {
  balancerOf,
  createConfig,
  directPorts,
  hashOf,
  hostLines,
  type K3dFile,
  type K3dImages,
  nodeConfig,
  serversOf,
} from "../model/k3d-file.ts";
import type { ClusterNode } from "../model/outputs.ts";
import type { K3dObservation } from "../observe/k3d-host.ts";

/** What a `K3dCluster` is made from. */
export interface K3dClusterArgs {
  readonly file: K3dFile;
  readonly images: K3dImages;
  /** What of the file makes it another cluster, see `clusterIdentity`. */
  readonly identity: string;
  /** What was seen of it before this run. */
  readonly observed: Pick<K3dObservation, "owner" | "cluster" | "servers">;
}

/** The variables by which `stacks/k3d/k3d.sh` knows whose a thing is; a recorded deletion needs nothing but them. */
export const clusterVariables = ({
  owner,
  name,
}: Pick<Cluster, "owner" | "name">): Record<string, string> => ({
  LAB_ID: owner.id,
  LAB_STACK: owner.stack,
  K3D_CLUSTER: name,
});

/** A shell command that runs an action of `stacks/k3d/main.ts`. */
export const k3dScript = (action: string): string => `"$K3S_LAB_ROOT/stacks/k3d/k3d.sh" ${action}`;

/**
 * The servers of a k3d cluster with their network and ports. `stacks/k3d/k3d.sh` does the work. What k3d cannot change
 * replaces it; what was stopped, paused or restarted is brought back in place, and of several servers a lost one is made
 * again beside the others.
 */
export class K3dCluster extends pulumi.ComponentResource {
  /** What agents are deleted with. */
  readonly command: local.Command;
  /** Changes when the cluster was made again: what was loaded into the old one is gone. */
  readonly generation: pulumi.Output<string>;
  /** The UID of its namespace kube-system: what it says of itself. */
  readonly id: pulumi.Output<string>;
  /** The servers as the stack exports them. */
  readonly details: pulumi.Output<readonly ClusterNode[]>;

  constructor(
    name: string,
    { file, images, identity, observed }: K3dClusterArgs,
    opts?: pulumi.ComponentResourceOptions,
  ) {
    super("k3s-lab:k3d:K3dCluster", name, {}, opts);
    const { generation, boot } = observed.cluster;
    const names = serversOf(file);
    const input: ServersInput = {
      config: { ...createConfig(file, images) },
      image: images.node ?? file.image,
      subnet: file.subnet ?? "auto",
      servers: names.map((server, index) => ({
        name: server,
        config: nodeConfig(file, { role: "server", index }),
        ports: directPorts(file, index, images),
      })),
      balancer: balancerOf(file, images),
      hosts: hostLines(file),
      labels: {
        ...{ "k3s-lab.image": file.image, "k3s-lab.servers": String(file.servers) },
        "k3s-lab.identity": hashOf(identity),
      },
      generation,
      boot,
    };
    const environment = clusterVariables({ owner: observed.owner, name: file.metadata.name });
    this.command = new local.Command(
      name,
      {
        create: k3dScript("create"),
        update: k3dScript("start"),
        delete: k3dScript("delete"),
        environment,
        // Variables, files and flags may hold what is nobody's business, not the token alone.
        stdin: pulumi.secret(JSON.stringify(input)),
        triggers: [identity, generation],
        addPreviousOutputInEnv: false,
      },
      // Ports, names and network cannot be taken twice, not even for a moment.
      { parent: this, deleteBeforeReplace: true, customTimeouts: { create: "30m", update: "30m" } },
    );
    // Known in a preview of a start in place, unlike the command's output.
    this.generation = this.command.id.apply(() => generation);
    const { stdout } = new local.Command(
      `${name}-id`,
      {
        create: k3dScript("cluster-id"),
        environment,
        triggers: [this.generation],
        addPreviousOutputInEnv: false,
      },
      { parent: this },
    );
    this.id = stdout;
    this.details = this.generation.apply(() =>
      names.map((server) => ({
        name: server,
        role: "server" as const,
        address: `docker://${server}`,
        installation: observed.servers.get(server)?.generation ?? generation,
      })),
    );
    this.registerOutputs({ details: this.details });
  }
}
