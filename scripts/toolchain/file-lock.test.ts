import assert from "node:assert/strict";
import { once } from "node:events";
import { mkdtemp, readdir, readFile, rm, utimes, writeFile } from "node:fs/promises";
import { hostname, tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { setImmediate } from "node:timers/promises";
import { execa } from "execa";
import pWaitFor from "p-wait-for";
import { LabError } from "../../stacks/lib/errors.ts";
import { withFileLock } from "./file-lock.ts";

const folder = await mkdtemp(join(tmpdir(), "lab-lock-"));
after(() => rm(folder, { recursive: true, force: true }));

test("one at a time, and everyone gets their turn", async () => {
  let inside = 0;
  const seen: number[] = [];
  const work = async (index: number) => {
    inside += 1;
    assert.equal(inside, 1);
    for (let turn = 0; turn < 5; turn += 1) await setImmediate();
    inside -= 1;
    seen.push(index);
  };
  await Promise.all([0, 1, 2, 3].map((index) => withFileLock(join(folder, "one"), () => work(index))));
  assert.deepEqual(seen.toSorted(), [0, 1, 2, 3]);
});

test("is released when the work fails, and leaves no file", async () => {
  const file = join(folder, "fails");
  await assert.rejects(
    withFileLock(file, () => Promise.reject(new Error("no"))),
    /no/,
  );
  assert.equal(await withFileLock(file, async () => "yes"), "yes");
  assert.deepEqual(
    (await readdir(folder)).filter((name) => name.startsWith("fails")),
    [],
  );
});

test("the lock of a process that is gone, or whose id another has now, is cleared away by one of those waiting", async () => {
  for (const holder of [
    { pid: 2 ** 22 + 1, started: "1", token: "gone" },
    { pid: process.pid, started: "1", token: "another process with my id" },
  ]) {
    const file = join(folder, "stale");
    await writeFile(file, JSON.stringify(holder));
    let inside = 0;
    await Promise.all(
      [0, 1, 2].map(() =>
        withFileLock(file, async () => {
          inside += 1;
          assert.equal(inside, 1);
          await setImmediate();
          inside -= 1;
        }),
      ),
    );
  }
});

test("waiting ends when the signal aborts", async () => {
  const file = join(folder, "waits");
  const abort = new AbortController();
  await withFileLock(file, async () => {
    const waiting = withFileLock(file, async () => undefined, { signal: abort.signal });
    abort.abort(new Error("stop"));
    await assert.rejects(waiting, /stop/);
  });
});

test("the clock is set: the lock of another computer or container that goes on beating is a living one's", async (t) => {
  for (const other of [
    { host: "another", boot: "b" },
    { host: hostname(), ids: "pid:[1]" },
  ]) {
    const file = join(folder, "stepped");
    await writeFile(file, JSON.stringify({ ...gone, ...other }));
    // As it looks when this clock was set an hour ahead, or the holder's is an hour behind.
    let beats = 0;
    const beat = () => utimes(file, long, new Date(long.getTime() + ++beats));
    await beat();
    const beating = setInterval(beat, 5);
    t.after(() => clearInterval(beating));
    const abort = new AbortController();
    const waiting = withFileLock(file, async () => "in", { signal: abort.signal, pollEvery: 1 });
    await Promise.race([waiting, pWaitFor(() => beats > 400, { interval: 10 })]);
    abort.abort(new Error("enough"));
    await assert.rejects(waiting, /enough/);
    clearInterval(beating);
    await rm(file);
  }
});

const gone = { pid: 2 ** 22 + 1, started: "1", token: "gone" };
const long = new Date(Date.now() - 3_600_000);
const stale: Readonly<Record<string, string>> = {
  "half written": '{"pid": 12',
  empty: "",
  "not a lock at all": "[]",
  "of a process of before the last boot, whose id lives": JSON.stringify({
    ...gone,
    pid: process.pid,
    host: hostname(),
    boot: "another",
  }),
  "of another computer that is silent": JSON.stringify({
    ...gone,
    host: "another",
    boot: "b",
  }),
  "of a container that is silent": JSON.stringify({
    ...gone,
    host: hostname(),
    ids: "pid:[1]",
  }),
};
for (const [name, text] of Object.entries(stale))
  test(`a lock that is ${name} holds nobody up`, async () => {
    const file = join(folder, "left");
    await writeFile(file, text);
    await utimes(file, long, long);
    assert.equal(await withFileLock(file, async () => "in", { pollEvery: 1 }), "in");
  });

test("the lock of another computer that has just said that it lives is waited for, and it is named", async () => {
  const file = join(folder, "foreign");
  await writeFile(file, JSON.stringify({ ...gone, host: "another", boot: "b" }));
  const lines: string[] = [];
  const abort = new AbortController();
  const waiting = withFileLock(file, async () => "in", {
    signal: abort.signal,
    progress: (line) => lines.push(line),
  });
  await pWaitFor(() => lines.length > 0, { interval: 10, timeout: 30_000 });
  abort.abort(new Error("enough"));
  await assert.rejects(waiting, /enough/);
  assert.match(lines[0] ?? "", /process 4194305 on another, .*foreign/);
  assert.match(await readFile(file, "utf8"), /another/);
});

test("a holder that was killed, half a second in, is noticed", async () => {
  const file = join(folder, "killed");
  const script = `import { withFileLock } from ${JSON.stringify(join(import.meta.dirname, "file-lock.ts"))};
    await withFileLock(${JSON.stringify(file)}, async () => { console.log("held"); await new Promise((end) => setTimeout(end, 60_000)); });`;
  const child = execa(process.execPath, ["--input-type=module", "--eval", script], { reject: false });
  await once(child.stdout, "data");
  child.kill("SIGKILL");
  assert.equal(await withFileLock(file, async () => "in"), "in");
  await child;
});

test("a folder that cannot be written is a sentence, not a stack trace", async () => {
  await writeFile(join(folder, "file"), "");
  await assert.rejects(
    withFileLock(join(folder, "file", "lock"), async () => "in"),
    (error) => error instanceof LabError && /cannot be locked/.test(error.message),
  );
});
