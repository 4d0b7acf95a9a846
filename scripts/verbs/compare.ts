import { constants } from "node:fs";
import { access, stat, writeFile } from "node:fs/promises";
import { availableParallelism } from "node:os";
import { dirname, join, resolve } from "node:path";
import { Command } from "commander";
import { refuseWhileUp, startLog } from "../bench/contest.ts";
import { rounds } from "../bench/rounds.ts";
import { substrateNames } from "../bench/substrates.ts";
import { renderChart } from "../compare/chart.ts";
import { compare } from "../compare/index.ts";
import { renderJson, renderTable, summarize } from "../compare/results.ts";
import { readExtent, realSite, requireContainers } from "../compare/site.ts";
import { LabError } from "../errors.ts";
import { labDir } from "../paths.ts";
import { stoppable } from "../signals.ts";

interface Options {
  readonly rounds: number;
  readonly json?: boolean;
  readonly svg?: string;
}

export const command = new Command("compare")
  .addOption(rounds("number of measurements of each", 1))
  .option("--json", "print JSON: medians and every measurement, in seconds and bytes")
  .option("--svg <file>", "also write a bar chart to a file")
  .addHelpText(
    "after",
    "\nBrings up both labs from nothing, one after the other (`cluster apps`, then `k3d apps-k3d`), measures each, adds a\nnode and takes the lab down. Each lab comes up once beforehand to fill the cache. Leaves no lab behind.\nExit codes: 0 measured, 1 failed, 2 bad input or a lab is up, 130 interrupted.",
  )
  .action(async ({ rounds, json, svg }: Options) => {
    await refuseWhileUp("compare");
    await requireContainers();
    if (svg !== undefined) await requireWritable(svg);
    const progress = (line: string) => process.stderr.write(`${line}\n`);
    const log = join(labDir, "log", "compare.log");
    await stoppable("The comparison was stopped; what it had brought up is down again.", async (signal) => {
      await startLog(log);
      const extents = await Promise.all(substrateNames.map(readExtent));
      const sites = await Promise.all(substrateNames.map((name) => realSite(name, log, progress)));
      const measured = await compare(sites, progress, rounds, signal);
      const summary = summarize(extents, measured, availableParallelism());
      process.stdout.write(json ? renderJson(summary) : renderTable(summary));
      if (svg !== undefined) await writeFile(svg, renderChart(summary));
      progress(`Everything that was printed, line by line with its time: ${log}`);
    });
  });

/** Found out at once, not after minutes of measuring. */
async function requireWritable(file: string): Promise<void> {
  try {
    await access(dirname(resolve(file)), constants.W_OK);
    if ((await stat(file).catch(() => undefined))?.isDirectory()) throw new Error("it is a folder");
  } catch (cause) {
    throw new LabError(
      `${file} cannot be written: ${(cause as Error).message}. Name a file in a folder that is yours.`,
      { cause, exitCode: 2 },
    );
  }
}
