import { local } from "@pulumi/command";
import * as pulumi from "@pulumi/pulumi";
import { imageLoader, loaderVariables } from "../model/image-loader.ts";
import type { ImageNode } from "../observe/images.ts";

export interface NodeImagesArgs {
  /** Name and tag of the image; a new one is loaded beside the old. */
  readonly image: string;
  /** The nodes that must hold it. */
  readonly nodes: readonly ImageNode[];
  /** Resolves when images can be loaded into them. */
  readonly prepared: Promise<void>;
}

/**
 * Loads an image into the image store of every node, so that no registry is needed. A node that was recreated or lost the
 * image gets it again. `lab image` builds the archive or finds it in the user's cache.
 */
export class NodeImages extends pulumi.ComponentResource {
  /** The image's name; resolves once every node holds it. */
  readonly image: pulumi.Output<string>;

  constructor(
    name: string,
    { image, nodes, prepared }: NodeImagesArgs,
    opts?: pulumi.ComponentResourceOptions,
  ) {
    super("k3s-lab:apps:NodeImages", name, {}, opts);
    const loads = nodes.map(
      (node) =>
        new local.Command(
          `${name}-${node.name}`,
          {
            create: imageLoader(node),
            addPreviousOutputInEnv: false,
            environment: { ...loaderVariables(node, image), LOADED: prepared.then(() => node.loaded) },
          },
          // What earlier versions of the lab recorded here would replace the command.
          { parent: this, ignoreChanges: ["triggers"] },
        ),
    );
    this.image = pulumi.all(loads.map(({ id }) => id)).apply(() => image);
    this.registerOutputs({ image: this.image });
  }
}
