import { type SubstrateName, substrates } from "../bench/substrates.ts";
import { root } from "../paths.ts";
import { k3dFile, machinesFile, type Topology } from "./topology.ts";

/** What the comparison has to know of a substrate, beside how to bring it up. */
export interface Subject {
  /** In tables and charts. */
  readonly title: string;
  /** Labels that all its containers carry, and no others. */
  readonly labels: readonly string[];
  readonly topology: Topology;
}

export const subjects: Readonly<Record<SubstrateName, Subject>> = {
  cluster: {
    title: "K3s",
    labels: [`k3s-lab.stack=${substrates.cluster.stacks[0]}`, `k3s-lab.checkout=${root}`],
    topology: machinesFile("Pulumi.cluster.yaml"),
  },
  k3d: {
    title: "K3d",
    labels: ["app=k3d", `k3d.cluster=${substrates.k3d.stacks[0]}`],
    topology: k3dFile("stacks/k3d.yaml"),
  },
};
