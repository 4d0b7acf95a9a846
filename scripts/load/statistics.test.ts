import assert from "node:assert/strict";
import { test } from "node:test";
import { Statistics } from "./statistics.ts";

test("percentiles cover answers in the last seconds, errors are counted separately", () => {
  let now = 1000;
  const statistics = new Statistics(() => now);
  assert.deepEqual(statistics.recent(), { requests: 0, failed: 0, perSecond: 0, latency: undefined });
  for (let ms = 100; ms >= 1; ms -= 1) statistics.note(ms, true);
  statistics.note(5000, false);
  now = 11_000;
  statistics.note(7, true);
  assert.deepEqual(statistics.recent(), {
    ...{ requests: 1, failed: 0, perSecond: 0.2 },
    latency: { p50: 7, p95: 7, p99: 7, max: 7 },
  });
  assert.deepEqual(statistics.whole(), {
    ...{ requests: 102, failed: 1, perSecond: 10.2 },
    latency: { p50: 50, p95: 95, p99: 99, max: 100 },
  });
});
