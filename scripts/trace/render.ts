import { renderRows } from "../rows.ts";
import type { Hop } from "./hops.ts";

/** Hops as lines of a table. */
export function renderHops(hops: readonly Hop[]): string {
  const rows = [
    ["HOP", "WHAT", "NODE", "FORWARDED BY"],
    ...hops.map(({ hop, what, node, by }) => [hop, what, node ?? "", by ?? ""]),
  ];
  return renderRows(rows);
}

/** Hops as a Mermaid flowchart, with a box for each node. */
export function mermaidOf(hops: readonly Hop[]): string {
  const lines = ["flowchart TD"];
  const box = ({ hop, what }: Hop, index: number) => `h${index}["${quoted(`${hop}: ${what}`)}"]`;
  const nodes = [...new Set(hops.flatMap(({ node }) => node ?? []))];
  for (const [index, hop] of hops.entries()) if (hop.node === undefined) lines.push(`  ${box(hop, index)}`);
  for (const [number, node] of nodes.entries()) {
    lines.push(`  subgraph n${number}["${quoted(`node ${node}`)}"]`);
    for (const [index, hop] of hops.entries()) if (hop.node === node) lines.push(`    ${box(hop, index)}`);
    lines.push("  end");
  }
  for (const [index, { by }] of hops.slice(0, -1).entries())
    lines.push(`  h${index} -->${by ? `|"${quoted(by)}"|` : ""} h${index + 1}`);
  return lines.join("\n");
}

/** A quoted text: escapes Mermaid's markup as entities. */
const quoted = (text: string): string =>
  text.replace(/[&<>"#`]/g, (character) => `#${character.codePointAt(0)};`);
