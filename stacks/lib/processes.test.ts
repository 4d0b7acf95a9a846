import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { basename } from "node:path";
import { test } from "node:test";
import { childrenOf, isRunning, parseStat, processesOf, processId } from "./processes.ts";

const skip = process.platform !== "linux" && "needs /proc";

test("reads state, parent and times whatever the program's name", () => {
  const rest = Array.from({ length: 40 }, (_, index) => String(index + 4));
  const stat = { state: "S", parent: 4, startTime: "22", worked: 290 };
  assert.deepEqual(parseStat(`7 (a) b) (c) S ${rest.join(" ")}`), stat);
  assert.equal(parseStat(""), undefined);
});

test("distinguishes a process from a later one with the same id", { skip }, async () => {
  const self = await processId(process.pid);
  assert.ok(self);
  assert.equal(await isRunning(self), true);
  assert.equal(await isRunning({ ...self, startTime: "1" }), false);
});

test("finds processes by command line and notices their end", { skip }, async () => {
  const mark = `k3s-lab-test-${process.pid}`;
  const child = spawn(process.execPath, ["-e", "setInterval(() => {}, 1000)", mark], { stdio: "ignore" });
  await once(child, "spawn");
  const found = await processesOf([basename(process.execPath)], mark);
  assert.deepEqual(
    found.map(({ pid }) => pid),
    [child.pid],
  );
  assert.deepEqual(await processesOf(["tail"], mark), [], "another program that names it is none of them");
  const self = await processId(process.pid);
  assert.ok(self);
  assert.ok((await childrenOf([self])).some(({ pid }) => pid === child.pid));
  assert.deepEqual(await childrenOf(found), []);
  child.kill("SIGKILL");
  await once(child, "exit");
  assert.deepEqual(await Promise.all(found.map(isRunning)), [false]);
});
