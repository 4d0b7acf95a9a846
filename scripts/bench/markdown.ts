/** A table in Markdown. @param rows the first is the head; columns behind the first are numbers, aligned right. */
export function table(rows: readonly (readonly string[])[]): string {
  const [head = [], ...body] = rows;
  const rule = head.map((_, column) => (column === 0 ? "---" : "---:"));
  return [head, rule, ...body].map((cells) => `| ${cells.join(" | ")} |`).join("\n");
}

/** A bar of a chart. */
interface Bar {
  readonly name: string;
  readonly value: number;
}

/**
 * A bar chart in Mermaid, which GitHub draws. Two values of one thing are two bars below each other, for Mermaid draws a second
 * series over the first.
 *
 * @param unit of all values.
 */
export function barChart(title: string, unit: string, bars: readonly Bar[]): string {
  const most = Math.max(0, ...bars.map(({ value }) => value));
  return [
    "```mermaid",
    "xychart-beta horizontal",
    `  title ${quoted(title)}`,
    `  x-axis [${bars.map(({ name }) => quoted(name)).join(", ")}]`,
    `  y-axis ${quoted(unit)} 0 --> ${Math.max(1, Math.ceil(most))}`,
    `  bar [${bars.map(({ value }) => value.toFixed(1)).join(", ")}]`,
    "```",
  ].join("\n");
}

const quoted = (text: string): string => `"${text.replaceAll('"', "'")}"`;
