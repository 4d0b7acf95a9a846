import { median, table } from "./results.ts";
import type { Usage } from "./usage.ts";

/** The measurements of one cluster, from creation to removal; times in seconds from the start of the command. */
export interface Measurement extends Usage {
  readonly nodesReady: number;
  /** Until all apps had answered from outside. */
  readonly appsAnswering: number;
  /** Until one more node was Ready. */
  readonly addNode: number;
  /** Until the cluster, with that node, was removed. */
  readonly takeDown: number;
}

const metrics = [
  { key: "nodesReady", title: "until all nodes are Ready", unit: "seconds" },
  { key: "appsAnswering", title: "until all apps answer", unit: "seconds" },
  { key: "addNode", title: "until one more node is Ready", unit: "seconds" },
  { key: "takeDown", title: "until everything is removed, including that node", unit: "seconds" },
  { key: "memory", title: "memory", unit: "bytes" },
  { key: "disk", title: "written to disk", unit: "bytes" },
  { key: "processes", title: "processes", unit: "count" },
] as const satisfies readonly Metric[];

interface Metric {
  readonly key: keyof Measurement;
  readonly title: string;
  readonly unit: "seconds" | "bytes" | "count";
}

/** What was brought up; the stack files say how much. */
export interface Extent {
  readonly title: string;
  /** The stacks, as typed on the command line. */
  readonly stacks: string;
  readonly nodes: number;
  readonly apps: number;
  /** Pods of the apps. */
  readonly pods: number;
}

interface Result extends Extent {
  readonly medians: Measurement;
  readonly measurements: readonly Measurement[];
}

interface Summary {
  readonly rounds: number;
  /** CPUs of the computer. */
  readonly cpus: number;
  readonly results: readonly Result[];
}

/** @param measured the measurements of each extent, one per round. */
export function summarize(
  extents: readonly Extent[],
  measured: readonly (readonly Measurement[])[],
  cpus: number,
): Summary {
  const results = extents.map((extent, index) => {
    const measurements = measured[index] ?? [];
    const values = metrics.map(({ key }) => [key, median(measurements.map((one) => one[key]))]);
    return { ...extent, medians: Object.fromEntries(values) as Measurement, measurements };
  });
  return { rounds: measured[0]?.length ?? 0, cpus, results };
}

export function format(value: number, unit: Metric["unit"]): string {
  if (unit === "seconds") return `${value.toFixed(1)} s`;
  return unit === "bytes" ? `${Math.round(value / 1024 ** 2)} MiB` : String(Math.round(value));
}

/** `1 node`, `2 nodes`. */
const counted = (count: number, noun: string): string => `${count} ${noun}${count === 1 ? "" : "s"}`;

/** The summary in Markdown: a table with a column for each cluster. */
export function renderClusters({ rounds, cpus, results }: Summary): string {
  const rows = [
    ["", ...results.map(({ title, stacks }) => `${title} (\`${stacks}\`)`)],
    [
      "brought up",
      ...results.map(
        ({ nodes, apps, pods }) =>
          `${counted(nodes, "node")}, ${counted(apps, "app")} in ${counted(pods, "pod")}`,
      ),
    ],
    ...metrics.map(({ key, title, unit }) => [
      title,
      ...results.map(({ medians }) => format(medians[key], unit)),
    ]),
  ];
  return [
    table(rows),
    `${rounds === 1 ? "One round" : `Medians of ${rounds} rounds`} on ${counted(cpus, "CPU")}, tools and images in the cache.\n`,
  ].join("\n\n");
}
