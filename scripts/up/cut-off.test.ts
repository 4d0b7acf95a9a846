import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { LabError } from "../../stacks/lib/errors.ts";
import { untilDone, wasCutOff } from "./cut-off.ts";

test("the next run knows of an interrupted run of Pulumi, by its stack, until that one ends", async (t) => {
  const folder = await mkdtemp(join(tmpdir(), "cut-off-"));
  t.after(() => rm(folder, { recursive: true }));
  const cutOff = () => Promise.all(["apps", "other"].map((stack) => wasCutOff(stack, folder)));
  const ends = (how: () => Promise<unknown>) => untilDone("apps", how, folder).catch(String);
  const fails = (exitCode: number) => async () => {
    throw new LabError("failed", { exitCode });
  };
  assert.deepEqual(await cutOff(), [false, false]);
  await ends(async () => assert.deepEqual(await cutOff(), [true, false], "it may be killed"));
  assert.deepEqual(await cutOff(), [false, false]);
  await ends(fails(130));
  assert.deepEqual(await cutOff(), [true, false]);
  await ends(fails(1));
  assert.deepEqual(await cutOff(), [false, false]);
});
