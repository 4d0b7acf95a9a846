import { local } from "@pulumi/command";
import * as pulumi from "@pulumi/pulumi";
import { stringify } from "yaml";
import { createConfig, type K3dFile, type K3dImages, serversOf } from "../k3d-file.ts";
import type { Observation } from "../observe.ts";
import type { ClusterNode } from "../outputs.ts";

/** What a `K3dCluster` is made from. */
export interface K3dClusterArgs {
  readonly file: K3dFile;
  readonly images: K3dImages;
  /** What was seen of its servers before this run; a cluster that is gone is made anew. */
  readonly observed: Observation;
}

/**
 * The servers of a k3d cluster with their network and ports. `stacks/k3d/k3d.sh` does the work. Any change but that of
 * agents replaces it, for k3d cannot change a cluster that is there; one that was stopped or restarted is started anew.
 */
export class K3dCluster extends pulumi.ComponentResource {
  /** What agents are deleted with. */
  readonly command: local.Command;
  /** Changes when the cluster was made anew: what was loaded into the old one is gone. */
  readonly generation: pulumi.Output<string>;
  /** The servers as the stack exports them. */
  readonly details: pulumi.Output<readonly ClusterNode[]>;

  constructor(
    name: string,
    { file, images, observed }: K3dClusterArgs,
    opts?: pulumi.ComponentResourceOptions,
  ) {
    super("k3s-lab:k3d:K3dCluster", name, {}, opts);
    const servers = serversOf(file);
    const config = stringify(createConfig(file, images));
    const script = (action: string) => `"$K3S_LAB_ROOT/stacks/k3d/k3d.sh" ${action}`;
    this.command = new local.Command(
      name,
      {
        create: script("create"),
        update: script("start"),
        delete: script("delete"),
        environment: {
          LAB_STACK: pulumi.getStack(),
          K3D_CLUSTER: file.metadata.name,
          K3D_IMAGE: images.node ?? file.image,
          NODE_NAME: servers[0],
          SERVERS: servers.join(" "),
          LAB_GENERATION: observed.generation,
          LAB_BOOT: observed.boot,
        },
        stdin: config,
        triggers: [config, observed.generation],
      },
      // Ports, names and network cannot be taken twice, not even for a moment.
      { parent: this, deleteBeforeReplace: true, customTimeouts: { create: "15m", update: "15m" } },
    );
    // Known in a preview of a start in place, unlike the command's output.
    this.generation = this.command.id.apply(() => observed.generation);
    this.details = this.generation.apply((installation) =>
      servers.map((server) => ({
        name: server,
        role: "server" as const,
        address: `docker://${server}`,
        installation,
      })),
    );
    this.registerOutputs({ details: this.details });
  }
}
