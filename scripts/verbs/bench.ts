import { join } from "node:path";
import { Command, InvalidArgumentError } from "commander";
import { realContest, refuseWhileUp } from "../bench/contest.ts";
import { compare } from "../bench/index.ts";
import { render, summarize } from "../bench/results.ts";
import { LabError } from "../errors.ts";
import { labDir } from "../paths.ts";

export const command = new Command("bench")
  .option("--rounds <number>", "how often each way runs", wholeNumber, 3)
  .option("--json", "print JSON: the medians and every single time")
  .addHelpText(
    "after",
    "\nRuns in turn the steps by hand (scripts/bench/by-hand.sh) and `lab up`, each from nothing to three apps answering,\nthen `lab up` without a change and `lab down`. Takes about three minutes a round and leaves no lab behind.",
  )
  .action(async ({ rounds, json }: { rounds: number; json?: boolean }) => {
    await refuseWhileUp();
    const progress = (line: string) => process.stderr.write(`${line}\n`);
    const stop = new AbortController();
    // Ctrl-C reaches the command that is running as well; here it only keeps the next one from starting.
    for (const signal of ["SIGINT", "SIGTERM"] as const) process.on(signal, () => stop.abort());
    const log = join(labDir, "log", "bench.log");
    try {
      const timings = await compare(await realContest(log, progress), progress, rounds, stop.signal);
      const summary = summarize(timings);
      process.stdout.write(json ? `${JSON.stringify({ ...summary, timings }, null, 2)}\n` : render(summary));
      progress(`Everything that was printed, line by line with its time: ${log}`);
    } catch (cause) {
      if (!stop.signal.aborted) throw cause;
      throw new LabError("The benchmark was stopped; what it had brought up is down again.", {
        cause,
        exitCode: 130,
      });
    } finally {
      for (const signal of ["SIGINT", "SIGTERM"] as const) process.removeAllListeners(signal);
    }
  });

function wholeNumber(text: string): number {
  if (!/^[1-9]\d?$/.test(text)) throw new InvalidArgumentError("A whole number from 1 to 99 is expected.");
  return Number(text);
}
