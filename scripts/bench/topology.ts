import { parseDocument } from "yaml";
import { toNumber, toText } from "../../stacks/model/addresses.ts";

export interface Topology {
  readonly file: string;
  /** The same text with one more agent. */
  readonly oneMore: (text: string) => string;
}

/** A machine of a stack file; its other keys are copied to the new one. */
interface Machine {
  readonly name: string;
  readonly ip: string;
}

/** A stack file that lists machines: the new one is a copy of the last, with the next address after the highest. */
export function oneMoreMachine(text: string): string {
  const document = parseDocument(text);
  const { config } = document.toJS() as { config: { "k3s-lab:machines": readonly Machine[] } };
  const machines = config["k3s-lab:machines"];
  let number = machines.length;
  while (machines.some(({ name }) => name === `agent${number}`)) number += 1;
  const ip = toText(Math.max(...machines.map(({ ip }) => toNumber(ip))) + 1);
  const twin = { ...machines.at(-1), name: `agent${number}`, role: "agent", ip };
  document.addIn(["config", "k3s-lab:machines"], document.createNode(twin));
  return document.toString({ lineWidth: 0 });
}

/** A k3d config file, in which `agents` is a number. */
export function oneMoreAgent(text: string): string {
  const document = parseDocument(text);
  document.set("agents", Number(document.get("agents") ?? 0) + 1);
  return document.toString({ lineWidth: 0 });
}
