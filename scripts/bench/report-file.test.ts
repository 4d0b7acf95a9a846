import assert from "node:assert/strict";
import { mkdtemp, readdir, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { saveReport } from "./report-file.ts";

test("a run has a file of its own that says how it was made", async (t) => {
  const folder = await mkdtemp(join(tmpdir(), "k3s-lab-bench-"));
  t.after(() => rm(folder, { recursive: true }));
  const run = { name: "k3d", command: "scripts/lab bench --save", date: new Date("2026-11-25T22:05:09Z") };
  await saveReport(run, "| a |\n", join(folder, "new"));
  assert.deepEqual(await readdir(join(folder, "new")), ["2026-11-25T2205-k3d.md"]);
  const text = await readFile(join(folder, "new", "2026-11-25T2205-k3d.md"), "utf8");
  assert.match(
    text,
    /^# Benchmark k3d, 2026-11-25\n\n\* Command: `scripts\/lab bench --save`\n\* Computer: .+ CPUs/,
  );
  assert.match(text, /\n\* K3s v1\.\d+.*\n\n\| a \|\n$/);
});
