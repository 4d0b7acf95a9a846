import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { readdir, readFile } from "node:fs/promises";
import pWaitFor from "p-wait-for";

/** Programs that runs of this checkout have started and that still go on. */
async function children(directory: string): Promise<string[]> {
  const pids = (await readdir("/proc")).filter((name) => /^\d+$/.test(name));
  const found = await Promise.all(
    pids.map(async (pid) => {
      const environment = (await readFile(`/proc/${pid}/environ`, "latin1").catch(() => "")).split("\0");
      const isOurs =
        environment.includes(`K3S_LAB_ROOT=${directory}`) &&
        environment.some((line) => line.startsWith("K3S_LAB_RUN="));
      const line = isOurs ? await readFile(`/proc/${pid}/cmdline`, "latin1").catch(() => "") : "";
      return line === "" ? undefined : `${pid} ${line.replaceAll("\0", " ")}`;
    }),
  );
  return found.filter((line) => line !== undefined);
}

/**
 * Starts `lab`, sends it a signal when it prints a text, and fails if any program of it goes on.
 * @param cwd the checkout.
 * @param env more of its environment. Default: nothing more.
 * @returns what came of it, in words.
 */
export async function killedAt(
  cwd: string,
  args: readonly string[],
  phase: RegExp,
  signal: NodeJS.Signals,
  env: Record<string, string> = {},
): Promise<string> {
  const run = spawn("scripts/lab", args, {
    cwd,
    env: { ...process.env, ...env },
    stdio: ["ignore", "pipe", "pipe"],
  });
  let output = "";
  for (const stream of [run.stdout, run.stderr])
    stream.on("data", (data) => {
      output += data;
    });
  const exited = once(run, "exit") as Promise<[number | null, string | null]>;
  await pWaitFor(() => phase.test(output) || run.exitCode !== null, { interval: 20, timeout: 900_000 });
  assert.equal(run.exitCode, null, `ended before ${phase}:\n${output}`);
  run.kill(signal);
  const [code] = await exited;
  if (signal === "SIGKILL")
    await pWaitFor(async () => (await children(cwd)).length === 0, { interval: 200, timeout: 90_000 }).catch(
      () => {},
    );
  else assert.equal(code, 130, output);
  assert.deepEqual(await children(cwd), [], `left running after ${signal} at ${phase}`);
  assert.doesNotMatch(output, /^\s+at .*:\d+:\d+\)?$/m, output);
  return `no program goes on after ${signal}`;
}
