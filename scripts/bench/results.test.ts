import assert from "node:assert/strict";
import { test } from "node:test";
import { median, render, summarize, type Timing } from "./results.ts";

const timing = (returned: number, answering?: number, phases: Timing["phases"] = []): Timing => ({
  returned,
  processor: returned / 10,
  phases,
  ...(answering === undefined ? {} : { answering }),
});

test("the median is the middle, whatever the order", () => {
  assert.equal(median([3, 1, 2]), 2);
  assert.equal(median([4, 1, 3, 2]), 2.5);
  assert.equal(median([10, 9, 100]), 10);
  assert.throws(() => median([]), RangeError);
});

const timings = {
  byHand: [
    timing(52, 50, [
      { name: "machines", endsAt: 8 },
      { name: "apps", endsAt: 51 },
    ]),
    timing(50, 49, [
      { name: "machines", endsAt: 10 },
      { name: "apps", endsAt: 49 },
    ]),
  ],
  up: [timing(70, 40), timing(74, 42)],
  upAgain: [timing(3), timing(4)],
  down: [timing(25), timing(19)],
};

const goals = { answering: 1.2, returned: 1.2, upAgain: 6, down: 20 };

test("compares medians with what is to be reached", () => {
  const summary = summarize(timings, goals);
  assert.deepEqual(summary.byHand, { answering: 49.5, returned: 51 });
  assert.deepEqual(summary.phases.byHand, [
    { name: "machines", endsAt: 9 },
    { name: "apps", endsAt: 50 },
  ]);
  assert.deepEqual(
    summary.goals.map(({ value, met }) => [Number(value.toFixed(2)), met]),
    [
      [0.83, true],
      [1.41, false],
      [3.5, true],
      [22, false],
    ],
  );
});

test("shows phases, ratio and what was missed", () => {
  const text = render(summarize(timings, goals));
  assert.match(text, /\n\| by hand \| machines \| 9\.0 s \|\n/);
  assert.match(text, /\n\| all apps answering, times by hand \| 0\.83 \| 1\.2 \| reached \|\n/);
  assert.match(text, /\n\| lab down, seconds \| 22\.00 \| 20 \| missed \|\n/);
  assert.match(text, /\n\| lab up \| processor time of the command, without containers \| 7\.2 s \|\n/);
  assert.match(text, /Medians of 2 rounds/);
});

test("what has no goal is not judged", () => {
  const { goals: judged } = summarize(timings, { answering: 0.8, upAgain: 3, down: 22 });
  assert.deepEqual(
    judged.map(({ what, atMost, met }) => [what, atMost, met]),
    [
      ["all apps answering, times by hand", 0.8, false],
      ["lab up without a change, seconds", 3, false],
      ["lab down, seconds", 22, true],
    ],
  );
});
