import { access, constants, stat, writeFile } from "node:fs/promises";
import { dirname } from "node:path";
import { Command } from "commander";
import { type LabError, refusal } from "../../stacks/lib/errors.ts";
import { ifThere } from "../../stacks/lib/files.ts";
import type { Progress } from "../../stacks/lib/progress.ts";
import { isPort } from "../../stacks/model/names.ts";
import { currentSettings } from "../../stacks/observe/recorded.ts";
import { labVariables } from "../environment.ts";
import { onCluster, type Where } from "../exercise/cluster.ts";
import { readSpec } from "../exercise/model.ts";
import { grade } from "../exercise/spec.ts";
import { interruptible } from "../signals.ts";
import { type Check, verify } from "../verify/index.ts";
import { printChecks, renderJunit } from "../verify/report.ts";
import { seconds, untilAllPass } from "../verify/wait.ts";

interface Options {
  readonly json?: boolean;
  readonly junit?: string;
  readonly wait: number;
  readonly spec?: string;
  readonly kubeconfig?: string;
  readonly context?: string;
  readonly address?: string;
  readonly httpsPort?: string;
}

export const command = new Command("verify")
  .argument("[stacks...]", "stacks to verify", ["cluster", "apps"])
  .option("--json", "print JSON: every check with what was expected and found")
  .option("--junit <file>", "also write the checks to a file in JUnit format")
  .option("--wait <seconds>", "repeat for up to this long until every check passes", seconds, 0)
  .option("--spec <file>", "instead, grade the stacks' cluster against a file of items with points")
  .option("--kubeconfig <file>", "with --spec: another cluster, which the lab need not have created")
  .option("--context <name>", "with --kubeconfig. Default: the file's current context")
  .option("--address <address>", "with --spec: where the Ingress controller listens, such as 10.0.0.5:8080")
  .option("--https-port <port>", "with --address: the port there for https. Default: 443")
  .addHelpText(
    "after",
    "\nSpecs of the tutorial's first three parts are in scripts/exercise/specs.\n\nExit codes: 0 every check passes, 1 one fails, 2 bad input.",
  )
  .action(async (stacks: string[], options: Options, { args }: Command) => {
    const { json, junit, wait } = options;
    refuseMisplaced(options, args);
    if (junit !== undefined) await refuseUnwritable(junit);
    if (options.kubeconfig !== undefined) await refuseUnreadable(options.kubeconfig);
    Object.assign(process.env, labVariables(await currentSettings()));
    const began = performance.now();
    const progress = (line: string) => process.stderr.write(`${line}\n`);
    const names = [...new Set(stacks)];
    const checks =
      options.spec === undefined
        ? await verify(names, { wait, progress })
        : await checkSpec(options.spec, { ...options, stacks: names }, progress);
    const took = performance.now() - began;
    if (junit !== undefined) await write(junit, renderJunit(checks, took));
    printChecks(checks, took, json);
    process.exitCode = checks.every(({ ok }) => ok) ? 0 : 1;
  });

/** Refuses options that need another one. @param stacks the arguments. */
function refuseMisplaced(
  { spec, kubeconfig, context, address, httpsPort }: Options,
  stacks: readonly string[],
): void {
  // kubectl treats an empty value as unset, and would query another cluster.
  for (const [option, value] of Object.entries({ spec, kubeconfig, context, address }))
    if (value?.trim() === "") throw refusal(`--${option} is empty: is a variable of your shell not set?`);
  if (spec === undefined && (kubeconfig ?? context ?? address) !== undefined)
    throw refusal("--kubeconfig, --context and --address need --spec: stack files name their own cluster.");
  if (httpsPort !== undefined && address === undefined) throw refusal("--https-port needs --address.");
  if (httpsPort !== undefined && !isPort(httpsPort))
    throw refusal("--https-port: expected a port from 1 to 65535.");
  if (context !== undefined && kubeconfig === undefined) throw refusal("--context needs --kubeconfig.");
  if (kubeconfig !== undefined && stacks.length > 0)
    throw refusal("Name stacks or --kubeconfig, not both: each says which cluster is meant.");
}

async function checkSpec(
  file: string,
  where: Omit<Where, "signal"> & Pick<Options, "wait">,
  progress: Progress,
): Promise<readonly Check[]> {
  const spec = await readSpec(file);
  return await interruptible("Interrupted.", (signal) =>
    onCluster({ ...where, signal }, (cluster) =>
      untilAllPass(() => grade(cluster, spec), where.wait, progress),
    ),
  );
}

async function write(file: string, text: string): Promise<void> {
  await writeFile(file, text).catch((cause: Error) => {
    throw unwritable(file, cause);
  });
}

/** Checks it before querying the cluster, which may take long. */
async function refuseUnwritable(file: string): Promise<void> {
  try {
    await access(dirname(file), constants.W_OK);
    if (file === "" || file.endsWith("/") || (await ifThere(stat(file)))?.isDirectory())
      throw new Error("it is not a file");
  } catch (cause) {
    throw unwritable(file, cause as Error);
  }
}

async function refuseUnreadable(file: string): Promise<void> {
  try {
    await access(file, constants.R_OK);
    if ((await stat(file)).isDirectory()) throw new Error("it is not a file");
  } catch (cause) {
    throw refusal(`${file} cannot be read: ${(cause as Error).message}. Name a kubeconfig.`, cause);
  }
}

const unwritable = (file: string, cause: Error): LabError =>
  refusal(
    `"${file}" cannot be written: ${cause.message}. Choose a file in a folder that you can write to.`,
    cause,
  );
