import type { Balancer, NodeConfig } from "../model/k3d-file.ts";
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
export interface ServersInput {
  /** What k3d makes. */
  readonly config: { readonly options?: object; readonly [key: string]: unknown };
  readonly image: string;
  readonly subnet: string;
  /** The servers in their order; a lost one is made from this. */
  readonly servers: readonly {
    readonly name: string;
    readonly config: NodeConfig;
    readonly ports: readonly string[];
  }[];
  /** k3d's load balancer; one that is lost is made from this. Default: the cluster has none. */
  readonly balancer?: Balancer | undefined;
  /** Lines for the nodes' /etc/hosts and for CoreDNS: an address and its names. */
  readonly hosts: readonly string[];
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
  readonly hosts: readonly string[];
  readonly generation: string;
  readonly boot: string;
}

export const networkOf = ({ name }: Cluster): string => `k3d-${name}`;
export const labelsOf = ({ owner, checkout }: Cluster): Record<string, string> => ownLabels(owner, checkout);
export const labelArgs = (labels: Readonly<Record<string, string>>): string[] =>
  Object.entries(labels).flatMap(([key, value]) => ["--label", `${key}=${value}`]);

/** What a registry is made from. */
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
