import assert from "node:assert/strict";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { phaseName, timed } from "./timed.ts";

async function logFile(t: { after(fn: () => Promise<void>): void }): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), "k3s-lab-bench-"));
  t.after(() => rm(directory, { recursive: true }));
  return join(directory, "log");
}

test("reads the end of a phase from the output of either way", () => {
  assert.equal(phaseName("phase K3s server"), "K3s server");
  assert.equal(phaseName("✔ Tools: 7 ready [0.3s]"), "Tools");
  assert.equal(phaseName("✔ Stack cluster "), "Stack cluster");
  assert.equal(phaseName("✔ Images [0.3s]"), "Images");
  assert.equal(phaseName("❯ Images"), undefined);
  assert.equal(phaseName("› creating phase x"), undefined);
});

test("records when phases end, the apps answer and the command returns", async (t) => {
  const log = await logFile(t);
  const script = "console.log('phase a\\n\\u001b[32m✔\\u001b[39m b [1s]'); console.error('✔ c')";
  const timing = await timed({
    file: process.execPath,
    args: ["--eval", script],
    log,
    watches: { answering: () => Promise.resolve(), never: () => Promise.reject(new Error("given up")) },
  });
  const [a] = timing.phases.filter(({ name }) => name === "a");
  const names = timing.phases.map(({ name }) => name);
  // Of two channels either may be read first.
  assert.deepEqual(names.toSorted(), ["a", "b", "c"]);
  assert.ok(a && names.indexOf("a") < names.indexOf("b"));
  assert.ok(timing.phases.every(({ endsAt }) => endsAt <= timing.returned));
  assert.ok(timing.answering !== undefined && timing.answering < a.endsAt);
  assert.equal(timing.never, undefined);
  const [command = "", ...lines] = (await readFile(log, "utf8")).trimEnd().split("\n");
  assert.match(command, /^\$ /);
  const said = lines.map((line) => line.replace(/^ +\d+\.\d {2}/, "")).toSorted();
  assert.deepEqual(said, ["phase a", "✔ b [1s]", "✔ c"]);
});

test("a failing command stops the benchmark and shows its last lines", async (t) => {
  const log = await logFile(t);
  const gaveUp = Promise.withResolvers<void>();
  const failing = timed({
    file: process.execPath,
    args: ["--eval", "console.error('no machine'); process.exit(3)"],
    log,
    watches: {
      answering: (signal) => {
        signal.addEventListener("abort", () => gaveUp.resolve());
        return gaveUp.promise;
      },
    },
  });
  await assert.rejects(failing, /failed, so there is nothing to compare[\s\S]*no machine/);
  await gaveUp.promise;
});

test("CPU time includes child processes", async (t) => {
  const log = await logFile(t);
  const busy = "while (process.cpuUsage().user < 400_000);";
  const child = `require('node:child_process').execFileSync(process.execPath, ['--eval', ${JSON.stringify(busy)}])`;
  const { processor } = await timed({ file: process.execPath, args: ["--eval", child], log });
  assert.ok(processor >= 0.4 && processor < 5, String(processor));
  const { processor: idle } = await timed({ file: "sleep", args: ["0.4"], log });
  assert.ok(idle < 0.1, String(idle));
});
