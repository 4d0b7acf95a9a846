import assert from "node:assert/strict";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { execa } from "execa";
import { limits } from "../scripts/verbs/test.ts";
import type { Counts } from "./count.ts";

/** What `node --test` says of a test file with this text, without its times. */
async function said(text: string, env: Record<string, string> = {}, minutes = 1): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), "k3s-lab-steps-"));
  try {
    const file = join(folder, "a.test.ts");
    await writeFile(file, text);
    const { all } = await execa(
      process.execPath,
      ["--test", "--test-reporter=spec", ...limits(minutes), file],
      // Set, it makes a runner inside of a test report to that one.
      { env: { ...env, NODE_TEST_CONTEXT: undefined }, reject: false, all: true },
    );
    return all.replaceAll(/ \(\d[\d.]*ms\)/g, "");
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

const at = (name: string) => JSON.stringify(join(import.meta.dirname, name));

test("after the first step that fails the rest of its suite is skipped with the reason, and not run", async () => {
  const all = await said(`
    import { describe } from "node:test";
    import { steps } from ${at("steps.ts")};
    describe("one", () => {
      const { test, fault } = steps();
      test("good", () => {});
      fault("C1: bad", async () => { throw new Error("wrong"); });
      test("next", () => console.log("RAN"));
      fault("C2: last", async () => (console.log("RAN"), { happened: "", lost: "nothing" }));
    });
    describe("another", () => {
      const { test } = steps();
      test("hangs", { timeout: 50 }, () => new Promise((resolve) => setTimeout(resolve, 100)));
      test("waits for it", () => new Promise((resolve) => setTimeout(resolve, 200)));
      test("and the next", () => console.log("RAN"));
    });
    describe("a third", () => {
      const { test } = steps();
      test("is its own", () => {});
    });`);
  assert.doesNotMatch(all, /^RAN/m);
  for (const line of [
    "✔ good",
    "✖ C1: bad",
    '﹣ next # builds on "C1: bad", which failed',
    '﹣ C2: last # builds on "C1: bad", which failed',
    "✖ hangs",
    '﹣ waits for it # builds on "hangs", which failed',
    '﹣ and the next # builds on "hangs", which failed',
    "✔ is its own",
  ])
    assert.ok(all.includes(`  ${line}\n`), `${line}\nis not in\n${all}`);
  assert.match(all, /^ℹ skipped 4$/m);
});

test("a suite that is skipped is counted as skipped, with the reason", async () => {
  const all = await said(`
    import { test } from "node:test";
    import { suite } from ${at("steps.ts")};
    suite("of Docker", { skip: "there is no Docker" }, () => void test("one", () => {}));
    suite("of all", { skip: false }, () => void test("runs", () => {}));`);
  assert.match(all, /^﹣ of Docker # there is no Docker$/m);
  assert.match(all, /^ {2}✔ runs$/m);
  assert.match(all, /^ℹ skipped 1$/m);
});

test("a file that a run leaves out is counted as skipped, with the reason", async () => {
  const all = await said(`import ${at("skipped.ts")};`, {
    K3S_LAB_SKIPPED_TESTS: JSON.stringify({ "tests/long.test.ts": "takes an hour" }),
  });
  assert.match(all, /^﹣ tests\/long\.test\.ts # takes an hour$/m);
  assert.match(all, /^ℹ skipped 1$/m);
});

test("a test that hangs, and what it waits for, do not hold the run for ever", async () => {
  const text = `
    import { test } from "node:test";
    test("hangs", () => new Promise((resolve) => setTimeout(resolve, 600_000)));`;
  const all = await said(text, {}, 0.01);
  assert.match(all, /test timed out after 600ms/);
  assert.match(all, /^ℹ duration_ms \d{1,5}\./m);
});

test("a run of several files is counted once: what passed, failed, was skipped or given up", async () => {
  const folder = await mkdtemp(join(tmpdir(), "k3s-lab-count-"));
  try {
    const files = ["a", "b"].map((name) => join(folder, `${name}.test.ts`));
    for (const file of files)
      await writeFile(
        file,
        `import { test } from "node:test";
        test("passes", () => {});
        test("fails", () => { throw new Error("wrong"); });
        test("is skipped", { skip: "no reason" }, () => {});`,
      );
    const counts = join(folder, "counts.json");
    const reporter = [`--test-reporter=${join(import.meta.dirname, "count.ts")}`];
    await execa(
      process.execPath,
      ["--test", ...reporter, `--test-reporter-destination=${counts}`, ...limits(1), ...files],
      { env: { NODE_TEST_CONTEXT: undefined }, reject: false },
    );
    const { tests, passed, failed, skipped, cancelled } = JSON.parse(
      await readFile(counts, "utf8"),
    ) as Counts;
    assert.deepEqual([tests, passed, failed, skipped, cancelled], [6, 2, 2, 2, 0]);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
});

test("results that a busy runner has not read yet are not lost when a test file's process ends", async () => {
  const folder = await mkdtemp(join(tmpdir(), "k3s-lab-count-"));
  try {
    const [file, slow, counts] = ["a.test.ts", "slow.ts", "counts.json"].map((name) => join(folder, name));
    await writeFile(
      file ?? "",
      `import { test } from "node:test";
      for (let one = 0; one < 3000; one++) test(\`\${one} of the tests with a long name\`, () => {});`,
    );
    // Two seconds in which the runner reads nothing of its test files.
    await writeFile(
      slow ?? "",
      `let waited = false;
      export default async function* slow(events) {
        for await (const _ of events)
          if (!waited) waited = Boolean(Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 2000));
      }`,
    );
    const reporters = [join(import.meta.dirname, "count.ts"), slow].flatMap((reporter, index) => [
      ...[`--test-reporter=${reporter}`, `--test-reporter-destination=${index === 0 ? counts : "/dev/null"}`],
    ]);
    await execa(process.execPath, ["--test", ...reporters, ...limits(1), file ?? ""], {
      env: { NODE_TEST_CONTEXT: undefined },
      reject: false,
    });
    const { tests, files } = JSON.parse(await readFile(counts ?? "", "utf8")) as Counts;
    assert.deepEqual({ tests, files }, { tests: 3000, files: 1 });
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
});
