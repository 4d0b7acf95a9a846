import type { clusterConfig, NodeConfig } from "../model/k3d-nodes.ts";
import { type Owner, ownLabels } from "./docker.ts";

/** The cluster that an action concerns. */
export interface Cluster {
  readonly owner: Owner;
  /** Its name in k3d. */
  readonly name: string;
  /** The checkout, as a label for people. */
  readonly checkout: string;
}

/** Input of `create` and `start`. */
export interface ServersInput extends ReturnType<typeof clusterConfig> {
  /** More labels of the servers: the settings of the cluster, `k3s-lab.identity` among them. */
  readonly labels: Readonly<Record<string, string>>;
  /** Identifies the cluster's creation, and this start of it. */
  readonly generation: string;
  readonly boot: string;
}

/** Input of `add-agent` and `start-agent`. */
export interface AgentInput {
  readonly name: string;
  readonly index: number;
  readonly config: NodeConfig;
  /** Identifies its settings. */
  readonly identity: string;
  /** Lines for its /etc/hosts. */
  readonly hosts: readonly string[];
  readonly generation: string;
  readonly boot: string;
}

/** Input of `registry`. */
export interface RegistryInput {
  readonly name: string;
  readonly image: string;
  readonly address: string;
  readonly port: string;
  readonly volumes: readonly string[];
  /** Variables, one a line; may hold the password of another registry. */
  readonly env: readonly string[];
  readonly boot: string;
}

export const networkOf = ({ name }: Pick<Cluster, "name">): string => `k3d-${name}`;
export const labelsOf = ({ owner, checkout }: Cluster): Record<string, string> => ownLabels(owner, checkout);
/** Labels in the form that Docker takes, a string each. */
export const pairs = (labels: Readonly<Record<string, string>>): string[] =>
  Object.entries(labels).map((pair) => pair.join("="));
