import { availableParallelism } from "node:os";
import { join } from "node:path";
import { Command, Option } from "commander";
import { labDir } from "../../stacks/lib/paths.ts";
import { renderClusters, summarize } from "../bench/clusters-report.ts";
import { refuseWhileUp } from "../bench/refuse.ts";
import { heading, mediansOf, render, timingsOf } from "../bench/results.ts";
import { measureInRounds } from "../bench/rounds.ts";
import { inCopy, readExtent, realSite, requireContainers, takeDownAll } from "../bench/site.ts";
import { rivals, type Site, type SubstrateName, substrateNames, substrates } from "../bench/substrates.ts";
import { bothWays, startLog } from "../bench/ways.ts";
import { interruptible } from "../signals.ts";
import { wholeNumber } from "../whole-number.ts";

interface Options {
  readonly rounds?: number;
  readonly substrate: SubstrateName;
  readonly compare?: keyof typeof rivals;
  readonly json?: true;
}

interface Report {
  readonly json: object;
  readonly markdown: string;
}

const log = join(labDir, "log", "bench.log");
const progress = (line: string) => void process.stderr.write(`${line}\n`);

export const command = new Command("bench")
  .option("--rounds <number>", "number of rounds (default: 3, with --compare 1)", wholeNumber(1, 99))
  .addOption(new Option("--substrate <name>", "kind of cluster").choices(substrateNames).default("cluster"))
  .addOption(
    new Option(
      "--compare [with]",
      "compare the stack cluster with k3d, or with three servers and etcd: time, memory, disk",
    )
      .choices(Object.keys(rivals))
      .preset("k3d")
      .conflicts("substrate"),
  )
  .option("--json", "print JSON instead of Markdown: medians and every measurement, in seconds and bytes")
  .addHelpText(
    "after",
    "\nEach round runs the steps by hand (scripts/bench/by-hand.sh, by-hand-k3d.sh) and `lab up`, both from nothing to all\napps answering, then `lab up` without a change, on machines also `lab up my-app` beside the apps, and `lab down`. A round takes\nabout three minutes.\nWith --compare each round brings up both labs, one after the other (`cluster apps`, then `k3d apps-k3d`, or with etcd\n`cluster-ha apps-ha`), measures each, adds a node and takes the lab down. It works in a copy of the checkout: your stack files are not touched.\nBoth first bring every lab up once to fill the cache, and leave no lab behind.\nExit codes: 0 measured, 1 failed, 2 bad input or a lab is up, 130 interrupted.",
  )
  .action(async ({ compare, json, ...options }: Options) => {
    await refuseWhileUp("bench");
    if (compare) await requireContainers([substrates.cluster, rivals[compare]]);
    const date = new Date();
    const report = await interruptible(
      "The benchmark was stopped, and everything that it had brought up was taken down.",
      (signal) => (compare ? clusters(rivals[compare], options, signal) : ways(options, signal)),
    );
    const commandLine = ["scripts/lab", ...process.argv.slice(2)].join(" ");
    const head = heading(compare ? "compare" : options.substrate, commandLine, date);
    process.stdout.write(json ? `${JSON.stringify(report.json, null, 2)}\n` : head + report.markdown);
    progress(`The full output, each line with its time: ${log}`);
  });

async function ways({ rounds = 3, substrate: name }: Options, signal: AbortSignal): Promise<Report> {
  const both = await bothWays(substrates[name], log, progress);
  const timings = timingsOf(await measureInRounds(both, rounds, progress, signal));
  const medians = mediansOf(timings);
  return { json: { substrate: name, rounds, medians, timings }, markdown: render(medians, rounds) };
}

async function clusters(
  rival: Site,
  { rounds = 1 }: Pick<Options, "rounds">,
  signal: AbortSignal,
): Promise<Report> {
  await startLog(log);
  const both = [substrates.cluster, rival];
  const extents = await Promise.all(both.map(readExtent));
  const measured = await inCopy(
    async (copy) => {
      const sites = await Promise.all(both.map((site) => realSite(site, copy, log, progress)));
      return await measureInRounds(sites, rounds, progress, signal);
    },
    (copy) => takeDownAll(both, copy, log),
  );
  const summary = summarize(extents, measured, availableParallelism());
  return { json: summary, markdown: renderClusters(summary) };
}
