import assert from "node:assert/strict";
import { once } from "node:events";
import { test } from "node:test";
import { interruptible } from "./signals.ts";

const names = ["SIGINT", "SIGTERM", "SIGHUP"] as const;
const listeners = () => names.map((name) => process.listenerCount(name));

for (const name of names)
  test(`${name} stops the next command, not the running one`, async () => {
    const before = listeners();
    const done: string[] = [];
    const series = interruptible("It was stopped.", async (signal) => {
      const stopped = once(signal, "abort");
      process.kill(process.pid, name);
      await stopped;
      done.push("the one that runs");
      signal.throwIfAborted();
      done.push("the next");
    });
    await assert.rejects(series, { name: "LabError", exitCode: 130, message: "It was stopped." });
    assert.deepEqual(done, ["the one that runs"]);
    assert.deepEqual(listeners(), before);
  });

test("a failure that is not an abort is rethrown", async () => {
  const before = listeners();
  const broke = new Error("broke");
  await assert.rejects(
    interruptible("It was stopped.", () => Promise.reject(broke)),
    broke,
  );
  assert.equal(await interruptible("It was stopped.", async () => 7), 7);
  assert.deepEqual(listeners(), before);
});
