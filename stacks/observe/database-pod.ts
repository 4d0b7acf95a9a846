import { join } from "node:path";
import { execa } from "execa";
import { isDiskFull, LabError } from "../lib/errors.ts";
import { exists } from "../lib/files.ts";
import { readKubeconfig } from "../lib/kube-access.ts";
import { connect, type Reached, reach } from "../lib/kubernetes.ts";
import { knownLabId } from "../lib/lab-id.ts";
import { labDir, root, stackDir } from "../lib/paths.ts";
import { type MyAppConfig, programOf, readStackFile, stackFile } from "../model/config.ts";
import { kubeconfigFile } from "../model/kubeconfig.ts";
import { readOwnState } from "./own-state.ts";
import { isOwn, pathOf } from "./ownership.ts";

/** What a command in a pod reads and writes. */
export interface Streams {
  /** Its standard input, as a text or a file. Default: none. */
  readonly input?: string;
  readonly inputFile?: string;
  /** File for its standard output. Default: it is returned. */
  readonly outputFile?: string;
}

/** How a command in a pod ended. */
export interface Ended {
  /** Undefined if unknown. */
  readonly exitCode: number | undefined;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs a command in the database's pod that takes the writes; tests put their own in its place. */
type RunInPod = (command: readonly string[], streams?: Streams) => Promise<Ended>;

/** The database of a running stack. */
export interface DatabasePod {
  /** Name of the pod that takes the writes, as the stack file says. */
  readonly name: string;
  readonly run: RunInPod;
}

/**
 * Reads what a stack's file says of its database.
 * @throws LabError (exit code 2) if it has none.
 */
export async function databaseConfig(stack: string, directory: string = root): Promise<MyAppConfig> {
  if (programOf(stack) !== "my-app")
    throw new LabError(
      `The stack "${stack}" has no database. Only guest book stacks have one: my-app, or a stack whose name begins with my-app-.`,
      { exitCode: 2 },
    );
  return await readStackFile(stack as "my-app", directory);
}

/** Milliseconds that a command in the pod may take: enough for the largest database on the slowest disk. */
const patience = 3_600_000;

/**
 * Finds the database of a stack, and makes sure that it belongs to this stack.
 * @param lab the stack's lab. Default: this checkout's.
 * @throws LabError with exit code 2 if the stack is not up or the database is not its own, 1 if the cluster does not answer.
 */
export async function findDatabase(
  stack: string,
  config: MyAppConfig,
  signal: AbortSignal,
  lab?: string,
): Promise<DatabasePod> {
  const { kubeconfig, api } = await reachCluster(stack, config);
  try {
    const { namespace } = config;
    const place = { apiVersion: "apps/v1", kind: "StatefulSet", namespace, name: "db" };
    const identity = await api.object(pathOf(place));
    if (identity === undefined) throw notUp(stack);
    const owner = { lab: lab ?? (await knownLabId()), stack };
    if (!isOwn(identity, owner, await readOwnState(stack)))
      throw new LabError(
        `The StatefulSet ${namespace}/db in the cluster does not belong to this stack. Nothing was touched. Run the command in the checkout that created it, or rename the namespace in ${stackFile(stack)}.`,
        { exitCode: 2 },
      );
    const name = `db-${config.database.primary}`;
    const where = ["--kubeconfig", kubeconfig, ...(api.context ? ["--context", api.context] : [])];
    return { name, run: runner([...where, "--namespace", namespace], name, signal) };
  } catch (cause) {
    if (cause instanceof LabError) throw cause;
    throw silent(stack, cause as Error);
  } finally {
    api.close();
  }
}

async function reachCluster(
  stack: string,
  { cluster }: MyAppConfig,
): Promise<{ kubeconfig: string; api: Reached }> {
  const own = "stack" in cluster;
  const kubeconfig = own
    ? join(stackDir(cluster.stack), "kubeconfig")
    : kubeconfigFile(cluster.kubeconfig, root);
  if (own && !(await exists(kubeconfig))) throw notUp(stack);
  try {
    if (own) return { kubeconfig, api: await reach(kubeconfig, 30_000) };
    const { context } = cluster;
    return { kubeconfig, api: { context, ...connect(await readKubeconfig(kubeconfig, context), 30_000) } };
  } catch (cause) {
    throw silent(stack, cause as Error);
  }
}

const notUp = (stack: string): LabError =>
  new LabError(`The stack "${stack}" is not up. Run \`scripts/lab up ${stack}\` first.`, { exitCode: 2 });

const silent = (stack: string, cause: Error): LabError =>
  new LabError(
    `The cluster of the stack "${stack}" does not answer: ${cause.message}. Run \`scripts/lab verify ${stack}\` to see what is wrong.`,
    { cause },
  );

const runner =
  (where: readonly string[], pod: string, signal: AbortSignal): RunInPod =>
  async (command, { input, inputFile, outputFile } = {}) => {
    const hasInput = input !== undefined || inputFile !== undefined;
    const exec = ["exec", ...(hasInput ? ["--stdin"] : []), pod, "--container", "postgres", "--", ...command];
    const result = await execa("kubectl", [...where, ...exec], {
      env: { PATH: `${join(labDir, "bin")}:${process.env.PATH}` },
      ...(inputFile === undefined ? { input: input ?? "" } : { inputFile }),
      ...(outputFile === undefined ? {} : { stdout: { file: outputFile } }),
      timeout: patience,
      cancelSignal: signal,
      reject: false,
    });
    // This computer's disk is full, whatever the pod reports.
    if (result instanceof Error && isDiskFull(result.cause))
      throw new LabError(`${outputFile ?? inputFile}: ${(result.cause as Error).message}`, { cause: result });
    const stderr = typeof result.stderr === "string" ? result.stderr : "";
    return {
      exitCode: result.exitCode,
      stdout: typeof result.stdout === "string" ? result.stdout : "",
      stderr: stderr || (result.failed ? (result.shortMessage ?? "") : ""),
    };
  };
