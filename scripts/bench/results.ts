import { availableParallelism, cpus, release } from "node:os";
import { defaultK3sVersion } from "../../stacks/versions.ts";

/** A phase of a run, named by the command itself. */
export interface Phase {
  readonly name: string;
  /** From the start of the run to the end of the phase. */
  readonly endsAt: number;
}

/** One timed command, or the medians of several; seconds. */
export interface Timing {
  readonly returned: number;
  /** CPU seconds of the command and its child processes, without containers; NaN if unknown. */
  readonly processor: number;
  /** Until all apps had answered from outside; none for commands that do not bring the lab up. */
  readonly answering?: number;
  readonly phases: readonly Phase[];
}

const titles = {
  byHand: "by hand",
  up: "lab up",
  upAgain: "lab up, no change",
  beside: "lab up my-app, beside the apps",
  down: "lab down",
} as const;

export type Kind = keyof typeof titles;
const kinds = Object.keys(titles) as Kind[];

/** Of the kinds that were measured. */
type OfEachKind<T> = Readonly<Partial<Record<Kind, T>>>;

/** The middle value, or the mean of the middle two. @throws RangeError for no values. */
export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const upper = sorted[Math.floor(sorted.length / 2)];
  const lower = sorted[Math.ceil(sorted.length / 2) - 1];
  if (upper === undefined || lower === undefined) throw new RangeError("the median of nothing");
  return (upper + lower) / 2;
}

/** @param results each way's timings, one per round. */
export const timingsOf = (
  results: readonly (readonly OfEachKind<Timing>[])[],
): OfEachKind<readonly Timing[]> =>
  Object.fromEntries(
    kinds
      .map((kind) => [kind, results.flat().flatMap((one) => one[kind] ?? [])] as const)
      .filter(([, timings]) => timings.length > 0),
  );

/** Medians over all rounds, including each phase's. */
export const mediansOf = (timings: OfEachKind<readonly Timing[]>): OfEachKind<Timing> =>
  Object.fromEntries(Object.entries(timings).map(([kind, all]) => [kind, medianOf(all)]));

function medianOf(all: readonly Timing[]): Timing {
  const answering = all.flatMap((one) => one.answering ?? []);
  const phases = Map.groupBy(
    all.flatMap((one) => one.phases),
    ({ name }) => name,
  );
  return {
    returned: median(all.map(({ returned }) => returned)),
    processor: median(all.map(({ processor }) => processor)),
    ...(answering.length > 0 ? { answering: median(answering) } : {}),
    phases: [...phases]
      .map(([name, list]) => ({ name, endsAt: median(list.map(({ endsAt }) => endsAt)) }))
      .sort((a, b) => a.endsAt - b.endsAt),
  };
}

/** A table in Markdown. @param rows the first is the header; columns after the first are numbers, aligned right. */
export function table(rows: readonly (readonly string[])[]): string {
  const [head = [], ...body] = rows;
  const rule = head.map((_, column) => (column === 0 ? "---" : "---:"));
  return [head, rule, ...body].map((cells) => `| ${cells.join(" | ")} |`).join("\n");
}

/** The beginning of a report: what was run, where and when. @param command the command line. */
export const heading = (name: string, command: string, date: Date): string =>
  [
    `# Benchmark ${name}, ${date.toISOString().slice(0, 10)}\n`,
    `* Command: \`${command}\``,
    `* Computer: ${cpus()[0]?.model.trim() ?? "unknown processor"}, ${availableParallelism()} CPUs, Linux ${release()}`,
    `* K3s ${defaultK3sVersion}, Node.js ${process.version}\n\n`,
  ].join("\n");

/** The medians as a table in Markdown. */
export function render(medians: OfEachKind<Timing>, rounds: number): string {
  const rows = kinds.flatMap((kind) => {
    const timing = medians[kind];
    if (timing === undefined) return [];
    const { phases, answering, returned, processor } = timing;
    const row = (what: string, value: number) => [titles[kind], what, `${value.toFixed(1)} s`];
    return [
      ...phases.map(({ name, endsAt }) => row(name, endsAt)),
      ...(answering === undefined ? [] : [row("all apps answer, seen from outside", answering)]),
      row("the command returns", returned),
      row("processor time of the command, without containers", processor),
    ];
  });
  return `${table([["from the start of", "until", "median"], ...rows])}\n\nMedians of ${rounds} ${rounds === 1 ? "round" : "rounds"}, run in turn.\n`;
}
