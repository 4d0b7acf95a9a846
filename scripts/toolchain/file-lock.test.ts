import assert from "node:assert/strict";
import { mkdtemp, readdir, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { setImmediate } from "node:timers/promises";
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
