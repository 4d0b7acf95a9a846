import type { ClusterNode } from "./outputs.ts";

/** What it takes to reach a node. */
export type NodeAddress = Pick<ClusterNode, "name" | "address">;

/** The shell command that loads an image into a node's store, by the kind of node. */
export function imageLoader({ name, address }: NodeAddress): string {
  const { protocol } = new URL(address);
  if (protocol === "ssh:") return '"$K3S_LAB_ROOT/vagrant/k3s.sh" load';
  if (protocol === "docker:") return '"$K3S_LAB_ROOT/stacks/k3d/k3d.sh" load';
  throw new Error(`the node ${name} is reached by ${address}, and nothing here can load an image that way`);
}

/** The environment of that command. */
export const loaderVariables = ({ name, address }: NodeAddress, image: string) => ({
  NODE_NAME: name,
  NODE_ADDRESS: new URL(address).hostname,
  IMAGE: image,
});
