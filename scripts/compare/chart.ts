import { extentInWords, format, metrics, provenance, type Result, type Summary } from "./results.ts";

const width = 760;
const left = 250;
/** Length of the longest bar of each group. */
const longest = 390;
const bar = 16;
const gap = 4;
const between = 18;
const top = 92;

/**
 * The summary as a bar chart: a group for each thing that is measured, a bar for each cluster. Every group has a scale
 * of its own, for seconds and bytes have none in common; every bar has its number beside it.
 *
 * @returns a whole SVG file. It is read out by its title and its description, and follows a dark colour scheme.
 */
export function renderChart(summary: Summary): string {
  const { results } = summary;
  const height = top + metrics.length * (results.length * (bar + gap) + between) + 28;
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" font-family="system-ui, sans-serif" font-size="14" role="img" aria-labelledby="title description">`,
    `  <title id="title">${xmlText(`${titles(results)}: what each takes`)}</title>`,
    `  <desc id="description">${xmlText(describe(summary))}</desc>`,
    "  <style>",
    "    .ground { fill: #ffffff } text { fill: #1f2328 } .small { font-size: 12px; fill: #57606a } .bold { font-weight: 600 }",
    "    .bar0 { fill: #3b6fd4 } .bar1 { fill: #c98a00 }",
    "    @media (prefers-color-scheme: dark) {",
    "      .ground { fill: #0d1117 } text { fill: #e6edf3 } .small { fill: #9198a1 } .bar0 { fill: #6f9cf0 } .bar1 { fill: #e0a82e }",
    "    }",
    "  </style>",
    `  <rect class="ground" width="${width}" height="${height}"/>`,
    `  <text x="20" y="32" class="bold">${xmlText(titles(results))}</text>`,
    ...legend(results),
    ...metrics.flatMap((metric, index) => group(summary, metric, index)),
    `  <text x="20" y="${height - 16}" class="small">${xmlText(provenance(summary))} Less is better.</text>`,
    "</svg>",
    "",
  ].join("\n");
}

const titles = (results: readonly Result[]): string => results.map(({ title }) => title).join(" and ");

/** All that the bars say, for those who do not see them. */
const describe = (summary: Summary): string =>
  [
    ...summary.results.map((result) => {
      const values = metrics.map(({ key, title, unit }) => `${title} ${format(result.medians[key], unit)}`);
      return `${result.title}, ${extentInWords(result)}: ${values.join(", ")}.`;
    }),
    provenance(summary),
  ].join(" ");

const legend = (results: readonly Result[]): string[] =>
  results.flatMap((result, index) => {
    const x = 20 + index * 360;
    return [
      `  <rect class="bar${index}" x="${x}" y="50" width="14" height="14" rx="2"/>`,
      `  <text x="${x + 22}" y="62"><tspan class="bold">${xmlText(result.title)}</tspan> <tspan class="small">${xmlText(extentInWords(result))}</tspan></text>`,
    ];
  });

function group(
  { results }: Summary,
  { key, title, unit }: (typeof metrics)[number],
  index: number,
): string[] {
  const values = results.map(({ medians }) => medians[key]);
  const most = Math.max(...values);
  const y = top + index * (results.length * (bar + gap) + between);
  const middle = y + (results.length * (bar + gap) - gap) / 2;
  return [
    `  <text x="${left - 16}" y="${middle + 5}" text-anchor="end">${xmlText(title)}</text>`,
    ...values.flatMap((value, at) => {
      const from = y + at * (bar + gap);
      // A bar that is nothing is still seen.
      const long = Math.max(1, most > 0 ? (value / most) * longest : 0).toFixed(1);
      return [
        `  <rect class="bar${at}" x="${left}" y="${from}" width="${long}" height="${bar}" rx="2"/>`,
        `  <text x="${(left + Number(long) + 8).toFixed(1)}" y="${from + 13}" class="small">${format(value, unit)}</text>`,
      ];
    }),
  ];
}

const xmlText = (text: string): string =>
  text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
