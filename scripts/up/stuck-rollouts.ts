import { setTimeout as pause } from "node:timers/promises";
import type { EngineEvent } from "@pulumi/pulumi/automation/index.js";
import { z } from "zod";
import { LabError } from "../../stacks/lib/errors.ts";
import { isReady, type KubernetesApi } from "../../stacks/lib/kubernetes.ts";
import { type OnCluster, stackFile } from "../../stacks/model/config.ts";
import { askPlace, placeOf } from "../../stacks/observe/place.ts";
import { workloadOf } from "../verify/cluster.ts";
import { whyLate } from "../verify/late.ts";

/** A Deployment that Pulumi waits for. */
const deploymentSchema = z.object({ name: z.string(), namespace: z.string() });
type Deployment = z.output<typeof deploymentSchema>;

/** Why a rollout will fail, in words; undefined if it may still succeed. */
type Ask = (deployment: Deployment) => Promise<string | undefined>;

/** How a rollout is looked at. */
interface Timing {
  /** Milliseconds between polls. Default: 2000. */
  readonly interval?: number;
  /** Milliseconds until the status describes this rollout and not the previous one. Default: 30,000. */
  readonly settles?: number;
}

/**
 * Stops Pulumi once Kubernetes reports a failed rollout: Pulumi itself would wait until its ten minutes are
 * over. If nothing serves yet, Pulumi keeps waiting: a new app may be slow to start.
 * @returns the options for `runStack`, and a function that ends the watch.
 */
export function stopWhereStuck(ask: Ask, { interval = 2000, settles = 30_000 }: Timing = {}) {
  const waiting = new Map<string, Deployment & { readonly since: number }>();
  const [stuck, ended] = [new AbortController(), new AbortController()];
  const onEvent = ({ resourcePreEvent, resOutputsEvent, resOpFailedEvent }: EngineEvent): void => {
    const begun = resourcePreEvent?.metadata;
    const { data } = deploymentSchema.safeParse(begun?.new?.inputs?.metadata);
    if (begun?.type === "kubernetes:apps/v1:Deployment" && begun.op !== "same" && data)
      waiting.set(begun.urn, { ...data, since: performance.now() });
    const over = (resOutputsEvent ?? resOpFailedEvent)?.metadata.urn;
    if (over !== undefined) waiting.delete(over);
  };
  const look = async (): Promise<void> => {
    const due = [...waiting.values()].filter(({ since }) => performance.now() - since >= settles);
    const words = await Promise.all(due.map((one) => ask(one).catch(() => undefined)));
    const found = words.filter((one) => one !== undefined);
    if (found.length > 0 && !ended.signal.aborted) stuck.abort(new LabError(found.join("\n")));
  };
  const loop = async (): Promise<void> => {
    while (!ended.signal.aborted && !stuck.signal.aborted) {
      await pause(interval, undefined, { signal: ended.signal }).catch(() => {});
      if (!ended.signal.aborted) await look();
    }
  };
  const running = loop();
  const end = (): Promise<void> => {
    ended.abort();
    return running;
  };
  return { onEvent, stop: stuck.signal, end };
}

/** Asks the cluster of a stack's apps. */
export const askCluster =
  (stack: string, config: OnCluster): Ask =>
  (deployment) =>
    askPlace(placeOf(config), (api) => whyStuck(api, stack, deployment));

/** Why a rollout failed, by Kubernetes and by its pods, and what to do. */
export async function whyStuck(
  api: Pick<KubernetesApi, "deployments" | "pods" | "events">,
  stack: string,
  { name, namespace }: Deployment,
): Promise<string | undefined> {
  const all = await api.deployments(namespace);
  const found = all.find(({ metadata }) => metadata.name === name);
  if (found === undefined) return undefined;
  // Beside a canary, the app itself serves.
  const app = found.metadata.labels["app.kubernetes.io/name"] ?? name;
  const serving = all
    .filter(({ metadata }) => metadata.name === name || metadata.name === app)
    .reduce((sum, { status }) => sum + status.availableReplicas, 0);
  const { metadata, spec, status } = found;
  const isOver = status.conditions.some(({ reason }) => reason === "ProgressDeadlineExceeded");
  if (!isOver || status.observedGeneration !== metadata.generation || serving === 0) return undefined;
  const late = (await api.pods(namespace)).filter(
    (pod) => workloadOf(pod) === `ReplicaSet ${name}` && !isReady(pod) && !pod.metadata.deletionTimestamp,
  );
  const why = await whyLate(api, namespace, late);
  const file = stackFile(stack);
  return [
    `The rollout of ${namespace}/${name} has failed: no progress for ${spec.progressDeadlineSeconds} s (Kubernetes: ProgressDeadlineExceeded).`,
    ...why.map((words) => `  ${words}`),
    `${serving} of its pods still serve. Run \`scripts/lab rollback ${app}\` to return to the previous version, or fix ${file} and run \`scripts/lab up ${stack}\`.`,
  ].join("\n");
}
