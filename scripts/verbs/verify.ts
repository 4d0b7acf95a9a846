import { access, constants, stat, writeFile } from "node:fs/promises";
import { dirname } from "node:path";
import { Command } from "commander";
import { type LabError, refusal } from "../../stacks/lib/errors.ts";
import { ifThere } from "../../stacks/lib/files.ts";
import { currentSettings } from "../../stacks/observe/recorded.ts";
import { labVariables } from "../environment.ts";
import { verify } from "../verify/index.ts";
import { printChecks, renderJunit } from "../verify/report.ts";
import { seconds } from "../verify/wait.ts";

interface Options {
  readonly json?: boolean;
  readonly junit?: string;
  readonly wait: number;
}

export const command = new Command("verify")
  .argument("[stacks...]", "stacks to verify", ["cluster", "apps"])
  .option("--json", "print JSON: every check with what was expected and found")
  .option("--junit <file>", "also write the checks to a file in JUnit format")
  .option("--wait <seconds>", "repeat for up to this long until every check passes", seconds, 0)
  .addHelpText("after", "\nExit codes: 0 every check passes, 1 one fails, 2 bad input.")
  .action(async (stacks: string[], { json, junit, wait }: Options) => {
    if (junit !== undefined) await refuseUnwritable(junit);
    Object.assign(process.env, labVariables(await currentSettings()));
    const began = performance.now();
    const progress = (line: string) => process.stderr.write(`${line}\n`);
    const checks = await verify([...new Set(stacks)], { wait, progress });
    const took = performance.now() - began;
    if (junit !== undefined) await write(junit, renderJunit(checks, took));
    printChecks(checks, took, json);
    process.exitCode = checks.every(({ ok }) => ok) ? 0 : 1;
  });

async function write(file: string, text: string): Promise<void> {
  await writeFile(file, text).catch((cause: Error) => {
    throw unwritable(file, cause);
  });
}

/** Before the cluster is asked, which may take long. */
async function refuseUnwritable(file: string): Promise<void> {
  try {
    await access(dirname(file), constants.W_OK);
    if (file === "" || file.endsWith("/") || (await ifThere(stat(file)))?.isDirectory())
      throw new Error("it is no file");
  } catch (cause) {
    throw unwritable(file, cause as Error);
  }
}

const unwritable = (file: string, cause: Error): LabError =>
  refusal(`"${file}" cannot be written: ${cause.message}. Name a file in a folder that is yours.`, cause);
