import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { hostname, tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, test } from "node:test";
import { setImmediate } from "node:timers/promises";
import { exists } from "./files.ts";
import { whileHeld } from "./state.ts";

let folder: string;
let locks: string;
let thing: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "lab-state-"));
  locks = join(folder, "locks");
  thing = join(folder, "thing");
  await mkdir(locks);
});
afterEach(() => rm(folder, { recursive: true, force: true }));
const isThere = () => exists(thing);

const holds = (pid: number | undefined, host = hostname()) =>
  writeFile(
    join(locks, "1.json"),
    JSON.stringify({ pid, hostname: host, timestamp: new Date().toISOString() }),
  );

/** Whether it still waits after it has looked many times. */
async function waits(wait: Promise<void>): Promise<boolean> {
  let ended = false;
  void wait.then(() => {
    ended = true;
  });
  for (let turn = 0; turn < 200; turn += 1) await setImmediate();
  return !ended;
}

test("does not wait for a stack that no run holds", () => whileHeld("cluster", isThere, { locks }));

test("waits for a thing while a run holds the stack, and says once whose run it is", async () => {
  await holds(process.pid);
  const told: number[] = [];
  let wait = Promise.resolve();
  await new Promise<void>((resolve) => {
    const tell = (pid: number) => {
      told.push(pid);
      resolve();
    };
    wait = whileHeld("cluster", isThere, { locks, tell });
  });
  assert.ok(await waits(wait));
  await writeFile(thing, "");
  await wait;
  assert.deepEqual(told, [process.pid]);
});

test("does not wait for a run of another machine", { timeout: 60_000 }, async () => {
  await holds(1, "elsewhere");
  await whileHeld("cluster", isThere, { locks });
});

test("the wait ends with the run, however it ends", async () => {
  const run = spawn("sleep", ["1000"]);
  const ended = once(run, "exit");
  await once(run, "spawn");
  await holds(run.pid);
  const wait = whileHeld("cluster", isThere, { locks });
  assert.ok(await waits(wait));
  run.kill("SIGKILL");
  await ended;
  await wait;
});
