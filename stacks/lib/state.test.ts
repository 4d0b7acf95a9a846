import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { hostname, tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, test } from "node:test";
import { setImmediate } from "node:timers/promises";
import { untilOutput } from "./state.ts";

let folder: string;
let options: { readonly file: string; readonly locks: string };
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "lab-state-"));
  options = { file: join(folder, "cluster.json"), locks: join(folder, "locks") };
  await mkdir(options.locks);
});
afterEach(() => rm(folder, { recursive: true, force: true }));

const holds = (pid: number | undefined, host = hostname()) =>
  writeFile(
    join(options.locks, "1.json"),
    JSON.stringify({ pid, hostname: host, timestamp: new Date().toISOString() }),
  );
const state = (outputs: object) =>
  writeFile(
    options.file,
    JSON.stringify({
      checkpoint: { latest: { resources: [{ urn: "urn", type: "pulumi:pulumi:Stack", outputs }] } },
    }),
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

test("does not wait for a stack that no run holds", () => untilOutput("cluster", "kubeconfig", options));

test("waits for an output while a run holds the stack, and says once whose run it is", async () => {
  await holds(process.pid);
  await state({ nodes: [] });
  const told: number[] = [];
  let wait = Promise.resolve();
  await new Promise<void>((resolve) => {
    const tell = (pid: number) => {
      told.push(pid);
      resolve();
    };
    wait = untilOutput("cluster", "kubeconfig", { ...options, tell });
  });
  assert.ok(await waits(wait));
  await state({ kubeconfig: "secret" });
  await wait;
  assert.deepEqual(told, [process.pid]);
});

test("does not wait for a run of another machine", { timeout: 60_000 }, async () => {
  await holds(1, "elsewhere");
  await untilOutput("cluster", "kubeconfig", options);
});

test("the wait ends with the run, however it ends", async () => {
  const run = spawn("sleep", ["1000"]);
  const ended = once(run, "exit");
  await once(run, "spawn");
  await holds(run.pid);
  const wait = untilOutput("cluster", "kubeconfig", options);
  assert.ok(await waits(wait));
  run.kill("SIGKILL");
  await ended;
  await wait;
});
