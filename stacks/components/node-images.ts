import { local } from "@pulumi/command";
import * as pulumi from "@pulumi/pulumi";
import type { ImageNode } from "../observe/images.ts";

/** What `NodeImages` is made from. */
export interface NodeImagesArgs {
  /** Name and tag of the image; a new one is loaded beside the old. */
  readonly image: string;
  /** The nodes that are to hold it. */
  readonly nodes: readonly ImageNode[];
}

/**
 * An image in the image store of every node, so that no registry is needed. A node that was recreated, or has lost it,
 * gets it again.
 * The archive is built, or found in the user's cache, by `lab image`.
 */
export class NodeImages extends pulumi.ComponentResource {
  /** The image's name, known once every node holds it. */
  readonly image: pulumi.Output<string>;

  constructor(name: string, { image, nodes }: NodeImagesArgs, opts?: pulumi.ComponentResourceOptions) {
    super("k3s-lab:apps:NodeImages", name, {}, opts);
    const loads = nodes.map(
      (node) =>
        new local.Command(
          `${name}-${node.name}`,
          {
            create: loader(node),
            addPreviousOutputInEnv: false,
            environment: {
              NODE_NAME: node.name,
              NODE_ADDRESS: new URL(node.address).hostname,
              IMAGE: image,
              LOADED: node.loaded,
            },
            triggers: [node.installation],
          },
          { parent: this },
        ),
    );
    this.image = pulumi.all(loads.map(({ id }) => id)).apply(() => image);
    this.registerOutputs({ image: this.image });
  }
}

/** What puts an image into a node, by the way it is reached. */
function loader({ name, address }: ImageNode): string {
  const { protocol } = new URL(address);
  if (protocol === "ssh:") return '"$K3S_LAB_ROOT/vagrant/k3s.sh" load';
  if (protocol === "docker:") return '"$K3S_LAB_ROOT/stacks/k3d/k3d.sh" load';
  throw new Error(`the node ${name} is reached by ${address}, and nothing here can load an image that way`);
}
