import { isIPv4 } from "node:net";
import { parse, parseDocument } from "yaml";
import { toNumber, toText } from "../../stacks/model/addresses.ts";

/** How the file that says what a cluster is made of is read and changed; pure, from its text. */
export interface Topology {
  /** Path in the checkout. */
  readonly file: string;
  /** How many nodes the text asks for. */
  readonly nodes: (text: string) => number;
  /** The same text, asking for one agent more. */
  readonly oneMore: (text: string) => string;
}

/** A machine of `Pulumi.cluster.yaml`; the rest of it goes over to its twin as it is. */
interface Machine {
  readonly name: string;
  readonly ip: string;
}

const machinesKey = ["config", "k3s-lab:machines"] as const;

/** A stack file that lists machines. */
export const machinesFile = (file: string): Topology => ({
  file,
  nodes: (text) => machinesOf(text).length,
  oneMore: (text) => {
    const machines = machinesOf(text);
    const last = machines.at(-1);
    if (last === undefined) throw new Error(`${file} names no machines`);
    const document = parseDocument(text);
    const twin = { ...last, name: newName(machines), role: "agent", ip: newAddress(machines) };
    document.addIn(machinesKey, document.createNode(twin));
    return document.toString({ lineWidth: 0 });
  },
});

/** A configuration file of k3d: `servers` and `agents` are numbers. */
export const k3dFile = (file: string): Topology => {
  const count = (text: string, key: "servers" | "agents", usual: number): number =>
    (parse(text) as Partial<Record<typeof key, number>>)[key] ?? usual;
  return {
    file,
    nodes: (text) => count(text, "servers", 1) + count(text, "agents", 0),
    oneMore: (text) => {
      const document = parseDocument(text);
      document.set("agents", count(text, "agents", 0) + 1);
      return document.toString({ lineWidth: 0 });
    },
  };
};

const machinesOf = (text: string): readonly Machine[] =>
  (parse(text) as { config?: { "k3s-lab:machines"?: readonly Machine[] } }).config?.["k3s-lab:machines"] ??
  [];

function newName(machines: readonly Machine[]): string {
  const taken = new Set(machines.map(({ name }) => name));
  let number = machines.length;
  while (taken.has(`agent${number}`)) number += 1;
  return `agent${number}`;
}

/** The address behind the highest one; the stack file's own check refuses one that the network does not have. */
const newAddress = (machines: readonly Machine[]): string =>
  toText(
    Math.max(
      ...machines
        .map(({ ip }) => ip)
        .filter(isIPv4)
        .map(toNumber),
    ) + 1,
  );
