import { join } from "node:path";
import { Command, Option } from "commander";
import { realContest, refuseWhileUp } from "../bench/contest.ts";
import { compare } from "../bench/index.ts";
import { render, summarize } from "../bench/results.ts";
import { rounds } from "../bench/rounds.ts";
import { type SubstrateName, substrateNames, substrates } from "../bench/substrates.ts";
import { labDir } from "../paths.ts";
import { stoppable } from "../signals.ts";

interface Options {
  readonly rounds: number;
  readonly substrate: SubstrateName;
  readonly json?: boolean;
}

export const command = new Command("bench")
  .addOption(rounds("number of rounds", 3))
  .addOption(new Option("--substrate <name>", "kind of cluster").choices(substrateNames).default("cluster"))
  .option("--json", "print JSON: medians and every measurement")
  .addHelpText(
    "after",
    "\nEach round runs the steps by hand (scripts/bench/by-hand.sh, by-hand-k3d.sh) and `lab up`, both from nothing to all\napps answering, then `lab up` without a change and `lab down`. A round takes about three minutes and leaves no lab\nbehind.",
  )
  .action(async ({ rounds, substrate: name, json }: Options) => {
    await refuseWhileUp("bench");
    const progress = (line: string) => process.stderr.write(`${line}\n`);
    const log = join(labDir, "log", "bench.log");
    const substrate = substrates[name];
    await stoppable("The benchmark was stopped; what it had brought up is down again.", async (signal) => {
      const contest = await realContest(substrate, log, progress);
      const timings = await compare(contest, progress, rounds, signal);
      const summary = summarize(timings, substrate.goals);
      process.stdout.write(
        json ? `${JSON.stringify({ substrate: name, ...summary, timings }, null, 2)}\n` : render(summary),
      );
      progress(`Everything that was printed, line by line with its time: ${log}`);
    });
  });
