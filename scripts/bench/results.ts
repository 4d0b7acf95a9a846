import { table } from "./markdown.ts";

/** A part of a run, in the words of who ran it. */
export interface Phase {
  readonly name: string;
  /** From the start of the run to the end of the phase. */
  readonly endsAt: number;
}

/** One timed command; seconds. */
export interface Timing {
  /** Until the command returned. */
  readonly returned: number;
  /** Processor seconds of the command and its child processes, containers left out; NaN where they are not known. */
  readonly processor: number;
  /** Until all apps had answered, as seen from outside; none for commands that do not bring the lab up. */
  readonly answering?: number;
  readonly phases: readonly Phase[];
}

/** What is timed. */
export type Kind = (typeof kinds)[number];

type Timings = Readonly<Record<Kind, readonly Timing[]>>;

/** What the lab is to reach. */
export interface Goals {
  /** Times by hand, until all apps answer. */
  readonly answering: number;
  /** Times by hand, until the command returns. Default: no goal, for `lab up` then has verified the lab as well. */
  readonly returned?: number;
  /** Seconds of a `lab up` without a change. */
  readonly upAgain: number;
  /** Seconds of `lab down`. */
  readonly down: number;
}

interface Goal {
  readonly what: string;
  readonly value: number;
  readonly atMost: number;
  readonly met: boolean;
}

/** Medians over all rounds, in seconds. */
interface Summary {
  readonly rounds: number;
  readonly byHand: { readonly answering: number; readonly returned: number };
  readonly up: { readonly answering: number; readonly returned: number };
  readonly upAgain: number;
  readonly down: number;
  /** Processor seconds of each kind's command. */
  readonly processor: Readonly<Record<Kind, number>>;
  readonly goals: readonly Goal[];
  /** Of each kind: its phases by name, when they end. */
  readonly phases: Readonly<Record<Kind, readonly Phase[]>>;
}

/** The middle value, or the mean of the two in the middle. @throws RangeError for no values. */
export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const upper = sorted[Math.floor(sorted.length / 2)];
  const lower = sorted[Math.ceil(sorted.length / 2) - 1];
  if (upper === undefined || lower === undefined) throw new RangeError("the median of nothing");
  return (upper + lower) / 2;
}

const kinds = ["byHand", "up", "upAgain", "down"] as const;

const ofEachKind = <T>(value: (kind: Kind) => T): Readonly<Record<Kind, T>> =>
  Object.fromEntries(kinds.map((kind) => [kind, value(kind)])) as Record<Kind, T>;

/** @param results of each way the timings of each round. */
export const timingsOf = (
  results: readonly (readonly Readonly<Partial<Record<Kind, Timing>>>[])[],
): Timings => ofEachKind((kind) => results.flat().flatMap((one) => one[kind] ?? []));

export function summarize(timings: Timings, goals: Goals): Summary {
  const medianOf = (kind: Kind, value: (timing: Timing) => number) => median(timings[kind].map(value));
  const returned = (kind: Kind) => medianOf(kind, (timing) => timing.returned);
  const answering = (kind: Kind) => medianOf(kind, (timing) => timing.answering ?? timing.returned);
  const goal = (what: string, value: number, atMost: number | undefined): Goal[] =>
    atMost === undefined ? [] : [{ what, value, atMost, met: value <= atMost }];
  return {
    rounds: timings.byHand.length,
    byHand: { answering: answering("byHand"), returned: returned("byHand") },
    up: { answering: answering("up"), returned: returned("up") },
    upAgain: returned("upAgain"),
    down: returned("down"),
    processor: ofEachKind((kind) => medianOf(kind, ({ processor }) => processor)),
    goals: [
      ...goal("all apps answering, times by hand", answering("up") / answering("byHand"), goals.answering),
      ...goal("lab up returned, times by hand", returned("up") / returned("byHand"), goals.returned),
      ...goal("lab up without a change, seconds", returned("upAgain"), goals.upAgain),
      ...goal("lab down, seconds", returned("down"), goals.down),
    ],
    phases: ofEachKind((kind) => medianPhases(timings[kind])),
  };
}

function medianPhases(timings: readonly Timing[]): Phase[] {
  const byName = Map.groupBy(
    timings.flatMap(({ phases }) => phases),
    ({ name }) => name,
  );
  return [...byName]
    .map(([name, list]) => ({ name, endsAt: median(list.map(({ endsAt }) => endsAt)) }))
    .sort((a, b) => a.endsAt - b.endsAt);
}

const titles: Readonly<Record<Kind, string>> = {
  byHand: "by hand",
  up: "lab up",
  upAgain: "lab up, no change",
  down: "lab down",
};

/** The summary for people, in Markdown: a table of phases, a table of goals. */
export function render({ rounds, byHand, up, processor, goals, phases }: Summary): string {
  const seconds = (value: number) => `${value.toFixed(1)} s`;
  const ends = [
    ["from the start of", "until", "median"],
    ...kinds.flatMap((kind) => phases[kind].map(({ name, endsAt }) => [titles[kind], name, seconds(endsAt)])),
    [titles.byHand, "all apps answer, seen from outside", seconds(byHand.answering)],
    [titles.up, "all apps answer, seen from outside", seconds(up.answering)],
    [titles.byHand, "the command returns", seconds(byHand.returned)],
    [titles.up, "the command returns", seconds(up.returned)],
    ...kinds.map((kind) => [
      titles[kind],
      "processor time of the command, without containers",
      seconds(processor[kind]),
    ]),
  ];
  const reached = [
    ["goal", "median", "at most", ""],
    ...goals.map(({ what, value, atMost, met }) => [
      what,
      value.toFixed(2),
      String(atMost),
      met ? "reached" : "missed",
    ]),
  ];
  const last = `Medians of ${rounds} ${rounds === 1 ? "round" : "rounds"}, run in turn.\n`;
  return [table(ends), table(reached), last].join("\n\n");
}
