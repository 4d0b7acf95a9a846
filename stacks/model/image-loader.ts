import type { ClusterNode } from "./outputs.ts";

/** What it takes to reach a node. */
export type NodeAddress = Pick<ClusterNode, "name" | "address">;

/** The shell command that loads an image into a node's store. */
export function imageLoader({ name, address }: NodeAddress): string {
  if (!/^(ssh|docker):/.test(address))
    throw new Error(`the node ${name} is reached by ${address}, and nothing here can load an image that way`);
  return '"$K3S_LAB_ROOT/stacks/lib/load-image.sh"';
}

/** The environment of that command. */
export const loaderVariables = ({ address }: NodeAddress, image: string) => ({
  NODE_ADDRESS: address,
  IMAGE: image,
});
