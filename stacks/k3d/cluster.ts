import type { clusterConfig, NodeConfig } from "../model/k3d-nodes.ts";
import { type Owner, ownLabels } from "./docker.ts";

/** The cluster that an action is about. */
export interface Cluster {
  readonly owner: Owner;
  /** Its name in k3d. */
  readonly name: string;
  /** The checkout, for people to read in the labels. */
  readonly checkout: string;
}

/** What `create` and `start` are told. */
export interface ServersInput extends ReturnType<typeof clusterConfig> {
  /** More labels of the servers: what the cluster was made from, `k3s-lab.identity` among them. */
  readonly labels: Readonly<Record<string, string>>;
  /** Names the making of the cluster, and this start of it. */
  readonly generation: string;
  readonly boot: string;
}

/** What `add-agent` and `start-agent` are told. */
export interface AgentInput {
  readonly name: string;
  readonly index: number;
  readonly config: NodeConfig;
  /** Names what it is made from. */
  readonly identity: string;
  /** Lines for its /etc/hosts. */
  readonly hosts: readonly string[];
  readonly generation: string;
  readonly boot: string;
}

/** What `registry` is told. */
export interface RegistryInput {
  readonly name: string;
  readonly image: string;
  readonly address: string;
  readonly port: string;
  readonly volumes: readonly string[];
  /** Lines of variables; may hold the password to another registry. */
  readonly env: readonly string[];
  readonly boot: string;
}

export const networkOf = ({ name }: Pick<Cluster, "name">): string => `k3d-${name}`;
export const labelsOf = ({ owner, checkout }: Cluster): Record<string, string> => ownLabels(owner, checkout);
/** Labels as Docker takes them, a text each. */
export const pairs = (labels: Readonly<Record<string, string>>): string[] =>
  Object.entries(labels).map((pair) => pair.join("="));
