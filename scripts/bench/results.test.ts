import assert from "node:assert/strict";
import { test } from "node:test";
import { heading, median, mediansOf, render, type Timing, timingsOf } from "./results.ts";

const timing = (returned: number, answering?: number, phases: Timing["phases"] = []): Timing => ({
  returned,
  processor: returned / 10,
  phases,
  ...(answering === undefined ? {} : { answering }),
});

test("the median does not depend on the order", () => {
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
  beside: [timing(27), timing(24)],
  down: [timing(25), timing(19)],
};

test("takes medians per command and of its phases, in the order they end", () => {
  const medians = mediansOf(timings);
  assert.deepEqual(medians.byHand, {
    ...{ returned: 51, processor: 5.1, answering: 49.5 },
    phases: [
      { name: "machines", endsAt: 9 },
      { name: "apps", endsAt: 50 },
    ],
  });
  assert.deepEqual(medians.down, { returned: 22, processor: 2.2, phases: [] });
});

test("shows phases, the first answer and the return", () => {
  const text = render(mediansOf(timings), 2);
  assert.match(text, /\n\| by hand \| machines \| 9\.0 s \|\n/);
  assert.match(text, /\n\| lab up \| all apps answer, seen from outside \| 41\.0 s \|\n/);
  assert.match(text, /\n\| lab up my-app, beside the apps \| the command returns \| 25\.5 s \|\n/);
  assert.match(text, /\n\| lab down \| the command returns \| 22\.0 s \|\n/);
  assert.match(text, /\n\| lab up \| processor time of the command, without containers \| 7\.2 s \|\n/);
  assert.match(text, /Medians of 2 rounds/);
});

test("leaves out what a substrate does not have", () => {
  const rounds = [[{ up: timing(70, 40) }, { up: timing(74, 42) }], [{ byHand: timing(50, 49) }]];
  const measured = timingsOf(rounds);
  assert.deepEqual(Object.keys(measured), ["byHand", "up"]);
  assert.doesNotMatch(render(mediansOf(measured), 2), /my-app|no change|lab down/);
});

test("the report starts with what was run, where and when", () => {
  assert.match(
    heading("k3d", "scripts/lab bench --substrate k3d", new Date("2026-11-25T22:05:09Z")),
    /^# Benchmark k3d, 2026-11-25\n\n\* Command: `scripts\/lab bench --substrate k3d`\n\* Computer: .+ CPUs, .+\n\* K3s v1\.\d+.*\n\n$/,
  );
});
