import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { hostname, tmpdir } from "node:os";
import { join } from "node:path";
import pWaitFor from "p-wait-for";
import { commandLine } from "../../stacks/lib/processes.ts";
import { locksOf } from "../../stacks/lib/state.ts";
import { fault } from "./table.ts";

// A clock that is set while something runs: when a process began counts by the clock as it is now.

fault("the clock is set a day ahead while Pulumi runs: its lock stays its own", async () => {
  const folder = await mkdtemp(join(tmpdir(), "lab-clock-"));
  const nameOf = async ({ pid = 0 }: ChildProcess) => (await commandLine({ pid }))[0];
  const start = (name: string) => spawn("bash", ["-c", `exec -a ${name} sleep 60`], { stdio: "ignore" });
  const [pulumi, other] = [start("pulumi"), start("another")];
  try {
    // A shell plays them from when it has become them.
    await pWaitFor(async () => (await Promise.all([pulumi, other].map(nameOf))).join() === "pulumi,another", {
      interval: 20,
      timeout: 120_000,
    });
    for (const { pid } of [pulumi, other])
      await writeFile(
        join(folder, `${pid}.json`),
        JSON.stringify({
          pid,
          hostname: hostname(),
          timestamp: new Date(Date.now() - 86_400_000).toISOString(),
        }),
      );
    const locks = await locksOf("cluster", folder);
    const alive = locks.filter((lock) => lock.alive).map(({ pid }) => pid);
    assert.deepEqual(alive, [pulumi.pid], "the lock of a program that took its id later holds nothing");
    return { happened: "the run is still known", lost: "nothing" };
  } finally {
    pulumi.kill();
    other.kill();
    await rm(folder, { recursive: true });
  }
});
