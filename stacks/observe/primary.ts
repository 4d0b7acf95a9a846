import { setTimeout } from "node:timers/promises";
import { z } from "zod";
import { refusal } from "../lib/errors.ts";
import type { StateResource } from "../lib/state.ts";
import { type MyAppConfig, stackFile } from "../model/config.ts";
import { type DatabasePod, findDatabase } from "./database-pod.ts";

const recordedSchema = z.object({
  metadata: z.object({ name: z.literal("db"), namespace: z.string() }),
  spec: z.object({ replicas: z.int().optional(), selector: z.record(z.string(), z.unknown()) }),
});

/** Whether the pod configured to take the writes is a replica; tests pass their own. */
type Follows = (stack: string, config: MyAppConfig) => Promise<boolean>;

/** @throws Error that says why there is no answer. */
const asksPod: Follows = async (stack, config) => {
  const signal = AbortSignal.timeout(30_000);
  const { run } = await findDatabase(stack, config, signal);
  return await isReplica(run, signal);
};

const ask = ["psql", "-XqAtw", "-h", "/run/postgresql", "-U", "postgres", "-c", "select pg_is_in_recovery()"];

/**
 * Asks the pod until it answers: it may be starting again, on a node that has just been changed.
 * @throws Error that says why there is no answer.
 */
export async function isReplica(run: DatabasePod["run"], signal: AbortSignal): Promise<boolean> {
  for (;;) {
    const { stdout, stderr } = await run(ask);
    if (/^[tf]$/.test(stdout.trim())) return stdout.trim() === "t";
    const why = stderr.trim().split("\n").at(-1) || "no answer";
    await setTimeout(500, undefined, { signal }).catch(() => {
      throw new Error(why);
    });
  }
}

/**
 * Refuses to route writes to a replica, or to remove its primary: nothing could be written then.
 * The replica must be promoted by hand first. If the file is unchanged, the database is not queried.
 * @param resources of the stack in its state, on a cluster that still exists.
 * @throws LabError (exit code 2).
 */
export async function refuseReplicaForWrites(
  stack: string,
  config: MyAppConfig,
  resources: readonly StateResource[],
  follows: Follows = asksPod,
): Promise<void> {
  const { namespace, database } = config;
  const { primary, replicas } = database;
  const of = (kind: string) =>
    resources
      .filter(({ type }) => type.endsWith(kind))
      .map(({ inputs }) => recordedSchema.safeParse(inputs).data)
      .find((one) => one?.metadata.namespace === namespace)?.spec;
  const [set, service] = [of(":StatefulSet"), of(":Service")];
  const refused = (words: string) => refusal(`${stackFile(stack)}: k3s-lab:database: ${words}`);
  if (set === undefined) {
    if (primary === 0) return;
    throw refused(`a new database begins in db-0. Set primary: 0.`);
  }
  const was = Number(/\d+$/.exec(String(service?.selector["statefulset.kubernetes.io/pod-name"]))?.[0] ?? 0);
  if (primary === was && replicas === (set.replicas ?? 1)) return;
  const [pod, other] = [`db-${primary}`, `db-${1 - primary}`];
  const back = `Nothing was touched. Set it back to replicas: ${set.replicas ?? 1}, primary: ${was}`;
  const isReplica = await follows(stack, config).catch((cause: Error) => {
    throw refused(
      `it would change, but ${pod} did not say whether it takes writes: ${cause.message}. ${back} until it answers.`,
    );
  });
  if (!isReplica) return;
  const kubectl = `kubectl --namespace ${namespace}`;
  const stop =
    primary === 0 ? `stop ${other} with \`${kubectl} scale statefulset db --replicas=1\`, then ` : "";
  const lost = primary === 0 ? "" : `, if ${other} is lost for good,`;
  throw refused(
    `${pod} replicates ${other}, which takes writes: no write would succeed. ${back}, or${lost} ${stop}promote ${pod} first: \`${kubectl} exec ${pod} -- postgres-entry promote\`.`,
  );
}
