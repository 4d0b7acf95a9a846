import type { local } from "@pulumi/command";
import * as pulumi from "@pulumi/pulumi";
import type { Cluster, ServersInput } from "../k3d/cluster.ts";
import { containerAddress, type K3dFile, serversOf } from "../model/k3d-file.ts";
import { clusterConfig, type K3dImages } from "../model/k3d-nodes.ts";
import type { ClusterNode } from "../model/outputs.ts";
import type { K3dObservation } from "../observe/k3d-host.ts";
import { k3dCommand } from "./k3d-command.ts";

export interface K3dClusterArgs {
  readonly file: K3dFile;
  readonly images: K3dImages;
  /** Settings that replace the cluster when they change, see `clusterIdentity`. */
  readonly identity: string;
  readonly observed: Pick<K3dObservation, "owner" | "cluster">;
}

/**
 * The servers of a k3d cluster with their network and ports. A change that k3d cannot make replaces the cluster; a stopped,
 * paused or restarted cluster is repaired in place, and a single lost server of several is recreated.
 */
export class K3dCluster extends pulumi.ComponentResource {
  /** Its owner, and its name in k3d. */
  readonly cluster: Pick<Cluster, "owner" | "name">;
  /** Environment for deleting agents. */
  readonly command: local.Command;
  /** Changes when the cluster was recreated: images loaded into the old one are gone. */
  readonly generation: pulumi.Output<string>;
  /** The cluster's identity: the UID of its namespace kube-system. */
  readonly id: pulumi.Output<string>;
  readonly details: pulumi.Output<readonly ClusterNode[]>;

  constructor(
    name: string,
    { file, images, identity, observed }: K3dClusterArgs,
    opts?: pulumi.ComponentResourceOptions,
  ) {
    super("k3s-lab:k3d:K3dCluster", name, {}, opts);
    const { generation, boot } = observed.cluster;
    const cluster = { owner: observed.owner, name: file.metadata.name };
    this.cluster = cluster;
    const labels = {
      ...{ "k3s-lab.image": file.image, "k3s-lab.servers": String(file.servers) },
      "k3s-lab.identity": identity,
    };
    const input: ServersInput = { ...clusterConfig(file, images), labels, generation, boot };
    this.command = k3dCommand(
      name,
      {
        ...{ cluster, input, triggers: [identity, generation] },
        actions: { create: "create", update: "start", delete: "delete" },
      },
      // Two clusters cannot hold the same ports, names and network, not even for a moment.
      { parent: this, deleteBeforeReplace: true, customTimeouts: { create: "30m", update: "30m" } },
    );
    // Known in a preview of a start in place, unlike the command's output.
    this.generation = this.command.id.apply(() => generation);
    this.id = k3dCommand(
      `${name}-id`,
      { cluster, actions: { create: "cluster-id" }, triggers: [this.generation] },
      { parent: this },
    ).stdout;
    this.details = this.generation.apply(() =>
      serversOf(file).map((server) => ({
        name: server,
        role: "server" as const,
        address: containerAddress(server),
      })),
    );
    this.registerOutputs({ details: this.details });
  }
}
