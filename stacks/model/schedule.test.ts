import assert from "node:assert/strict";
import { test } from "node:test";
import { isSchedule } from "./schedule.ts";

test("accepts the schedules that Kubernetes accepts", () => {
  for (const good of [
    "17 3 * * *",
    "*/15 * * * *",
    "0,30 0-6/2 1,15 jan-MAR mon-fri",
    "59 23 31 12 6",
    "* * * * *",
    ...["17 3 29 2 *", "17 3 30,31 1-2 *", "17 3 31 2 mon", "17 3 */10 4 *"],
  ])
    assert.ok(isSchedule(good), good);
  for (const bad of [
    ...["", "daily", "17 3 * *", "17 3 * * * *", "60 3 * * *", "17 24 * * *", "17 3 0 * *", "17 3 32 * *"],
    ...["17 3 * 13 *", "17 3 * * 7", "17 3 * foo *", "5-1 3 * * *", "*/0 3 * * *", "1, 3 * * *"],
    ...["17  3 * * *", "TZ=UTC 17 3 * * *", "17 3 * * mon-xyz", "-1 3 * * *"],
    ...["17 3 30 2 *", "17 3 31 feb,4-6/2,9,11 *", "17 3 31/2 6 *"], // never
  ])
    assert.ok(!isSchedule(bad), bad);
});
