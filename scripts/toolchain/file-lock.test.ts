import assert from "node:assert/strict";
import { once } from "node:events";
import { chmod, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { setImmediate, setTimeout } from "node:timers/promises";
import { execa } from "execa";
import pWaitFor from "p-wait-for";
import { LabError } from "../../stacks/lib/errors.ts";
import { exists } from "../../stacks/lib/files.ts";
import { childrenOf } from "../../stacks/lib/processes.ts";
import { mark } from "../run-mark.ts";
import { withFileLock } from "./file-lock.ts";

const folder = await mkdtemp(join(tmpdir(), "lab-lock-"));
after(() => rm(folder, { recursive: true, force: true }));

test("one holder at a time, and everyone gets a turn", async () => {
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
    /^Error: no$/,
  );
  assert.equal(await withFileLock(file, async () => "yes"), "yes");
  assert.equal(await exists(file), false);
});

test("waiting stops when the signal aborts", async () => {
  const file = join(folder, "waits");
  const abort = new AbortController();
  await withFileLock(file, async () => {
    const waiting = withFileLock(file, async () => undefined, { signal: abort.signal });
    abort.abort(new Error("stop"));
    await assert.rejects(waiting, /stop/);
  });
});

test("a waiter is told who holds the lock; the file's content blocks nobody", async () => {
  const file = join(folder, "told");
  await writeFile(file, '{"pid": 12');
  const lines: string[] = [];
  await withFileLock(file, async () => {
    const waiting = withFileLock(file, async () => "in", { progress: (line) => lines.push(line) });
    await pWaitFor(() => lines.length > 0, { interval: 10, timeout: 30_000 });
    return { waiting };
  }).then(async ({ waiting }) => assert.equal(await waiting, "in"));
  assert.match(lines.join("\n"), new RegExp(`^waiting for process ${process.pid} on \\S+, .*told\\)$`));
});

test("stays held while a run's programs are ended and until Ctrl-C is answered", async () => {
  process.env[mark] = "a run";
  try {
    await withFileLock(join(folder, "unmarked"), async () => {
      const [holder] = await childrenOf([{ pid: process.pid, startTime: "" }]);
      const about = (file: string) => readFile(`/proc/${holder?.pid}/${file}`, "utf8");
      assert.equal((await about("environ")).includes(mark), false);
      const [, , group] = (await about("stat")).replace(/.*\) /s, "").split(" ");
      assert.equal(Number(group), holder?.pid);
    });
  } finally {
    delete process.env[mark];
  }
});

test("a killed holder is noticed within half a second", async () => {
  const file = join(folder, "killed");
  const script = `import { withFileLock } from ${JSON.stringify(join(import.meta.dirname, "file-lock.ts"))};
    await withFileLock(${JSON.stringify(file)}, async () => { console.log("held"); await new Promise((end) => setTimeout(end, 60_000)); });`;
  const child = execa(process.execPath, ["--input-type=module", "--eval", script], { reject: false });
  await once(child.stdout, "data");
  child.kill("SIGKILL");
  assert.equal(await withFileLock(file, async () => "in"), "in");
  await child;
});

const byRoot = { skip: process.getuid?.() !== 0 && "needs root, to be another user" };
test("the lock file of another user's killed run can be locked and waited for", byRoot, async () => {
  // Whoever runs this, the other user may look into it.
  const shared = await mkdtemp("/tmp/lab-lock-shared-");
  try {
    await chmod(shared, 0o777);
    const file = join(shared, "left");
    await writeFile(file, "1 on here\n");
    await chmod(file, 0o644);
    const script = await readFile(join(import.meta.dirname, "lock.sh"), "utf8");
    const asNobody = [
      "--reuid=65534",
      "--regid=65534",
      "--clear-groups",
      "sh",
      "-c",
      script,
      "sh",
      file,
      "2",
    ];
    const take = () => execa("setpriv", asNobody, { cwd: "/", input: "", reject: false, timeout: 120_000 });
    const { exitCode, stderr } = await take();
    assert.equal(exitCode, 0, stderr);
    let isIn = false;
    const { waiting } = await withFileLock(file, async () => {
      const waiting = take().finally(() => {
        isIn = true;
      });
      await setTimeout(500);
      assert.equal(isIn, false);
      return { waiting };
    });
    assert.equal((await waiting).exitCode, 0);
  } finally {
    await rm(shared, { recursive: true, force: true });
  }
});

test("an unwritable folder is reported in a sentence", async () => {
  await writeFile(join(folder, "file"), "");
  await assert.rejects(
    withFileLock(join(folder, "file", "lock"), async () => "in"),
    (error) => error instanceof LabError && /cannot be locked/.test(error.message),
  );
});
