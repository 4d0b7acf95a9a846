import { isDiskFull, LabError, refusal } from "../lib/errors.ts";
import { exists } from "../lib/files.ts";
import { knownLabId } from "../lib/lab-id.ts";
import { root } from "../lib/paths.ts";
import { type MyAppConfig, programOf, readStackFile, stackFile } from "../model/config.ts";
import { readOwnState } from "./own-state.ts";
import { isOwn, pathOf } from "./ownership.ts";
import { kubectl, type Place, placeOf, reachPlace } from "./place.ts";

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
export async function databaseConfig(stack: string): Promise<MyAppConfig> {
  if (programOf(stack) !== "my-app")
    throw refusal(
      `The stack "${stack}" has no database. Only guest book stacks have one: my-app, or a stack whose name begins with my-app-.`,
    );
  return await readStackFile(stack as "my-app", root);
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
  const place = placeOf(config);
  if (place.context === undefined && !(await exists(place.kubeconfig))) throw notUp(stack);
  const api = await reachPlace(place, 6).catch((cause: Error) => {
    throw silent(stack, cause);
  });
  try {
    const { namespace } = config;
    const set = { apiVersion: "apps/v1", kind: "StatefulSet", namespace, name: "db" };
    const identity = await api.object(pathOf(set));
    if (identity === undefined) throw notUp(stack);
    const owner = { lab: lab ?? (await knownLabId()), stack };
    if (!isOwn(identity, owner, await readOwnState(stack)))
      throw refusal(
        `The StatefulSet ${namespace}/db in the cluster does not belong to this stack. Nothing was touched. Run the command in the checkout that created it, or rename the namespace in ${stackFile(stack)}.`,
      );
    const name = `db-${config.database.primary}`;
    return { name, run: runner({ ...place, context: api.context }, namespace, name, signal) };
  } catch (cause) {
    if (cause instanceof LabError) throw cause;
    throw silent(stack, cause as Error);
  } finally {
    api.close();
  }
}

const notUp = (stack: string): LabError =>
  refusal(`The stack "${stack}" is not up. Run \`scripts/lab up ${stack}\` first.`);

const silent = (stack: string, cause: Error): LabError =>
  new LabError(
    `The cluster of the stack "${stack}" does not answer: ${cause.message}. Run \`scripts/lab verify ${stack}\` to see what is wrong.`,
    { cause },
  );

const runner =
  (place: Place, namespace: string, pod: string, signal: AbortSignal): RunInPod =>
  async (command, { input, inputFile, outputFile } = {}) => {
    const hasInput = input !== undefined || inputFile !== undefined;
    const exec = ["--namespace", namespace, "exec", ...(hasInput ? ["--stdin"] : []), pod];
    const result = await kubectl(place, [...exec, "--container", "postgres", "--", ...command], {
      ...(inputFile === undefined ? { input: input ?? "" } : { inputFile }),
      ...(outputFile === undefined ? {} : { stdout: { file: outputFile } }),
      timeout: patience,
      cancelSignal: signal,
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
