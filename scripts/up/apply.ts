import { rm } from "node:fs/promises";
import { LabError } from "../../stacks/lib/errors.ts";
import { writeWhole } from "../../stacks/lib/files.ts";
import type { Progress } from "../../stacks/lib/progress.ts";
import { hasResources, stateOf } from "../../stacks/lib/state.ts";
import { isOnCluster, programOf } from "../../stacks/model/config.ts";
import { earlyFolder, earlyImages, earlyVariable } from "../../stacks/observe/early.ts";
import { preconditionsVariable } from "../../stacks/observe/preconditions.ts";
import { recordedIn } from "../../stacks/observe/recorded.ts";
import { confirmLosses } from "../confirm.ts";
import { labVariables } from "../environment.ts";
import { openGate, type StackPreview } from "../gate.ts";
import { describeChanges, unchanged } from "../lab.ts";
import { lossesOf } from "../losses.ts";
import { type Changes, previewStack, pulumiStopsWithin, type RunOptions, runStack } from "../pulumi.ts";
import { runSteps, type Step, unlessStopped } from "../report.ts";
import { noteUpToDate, observeStack, recordedNodes, sourcesOf } from "../up-to-date.ts";
import { untilDone, wasCutOff } from "./cut-off.ts";
import { prepareEarly } from "./early.ts";
import { answers, loadEarly } from "./early-images.ts";
import type { UpRun } from "./run.ts";
import { forceFields, upWithForcedFields } from "./set-back.ts";
import { askCluster, stopWhereStuck } from "./stuck-rollouts.ts";

/** Confirms losses, then runs Pulumi for each stack, or for none if nothing has changed since the last run. */
export async function applyStacks(run: UpRun): Promise<void> {
  const { stacks, found, replace: allowed, refresh, stopping } = run;
  const isUnreachable = async (stack: string) => {
    const own = found.apps.find((one) => one.stack === stack);
    return own !== undefined && stacks.includes(own.cluster) && !(await isWhole(own.cluster));
  };
  const cutOff = new Set<string>();
  for (const stack of stacks) if (isApps(stack) && (await wasCutOff(stack))) cutOff.add(stack);
  const refreshes = (stack: string) => refresh || cutOff.has(stack);
  const preview = (stack: string) => previewLosses(run, stack, refreshes(stack));
  const { deferred, upToDate } = await openGate(stacks, { preview, isUnreachable, allowed });
  if (upToDate && !refresh) {
    // Pulumi would take seconds to find that nothing changed.
    const unchanged = (stack: string): Step => ({
      title: `Stack ${stack}`,
      run: async () => describeChanges({}),
    });
    return await runSteps([stacks.map(unchanged)], stopping);
  }
  const together = await firstOnNewClusters(run);
  for (const stack of stacks) {
    if ([...together.values()].includes(stack)) continue;
    const onIt = together.get(stack);
    if (onIt !== undefined) {
      await applyTogether(run, stack, onIt);
      continue;
    }
    if (
      deferred.has(stack) ||
      (isApps(stack) && !isOnNewCluster(run, stack) && run.previews.isOutdated(stack))
    )
      await askLate(run, stack, refreshes(stack));
    await applyStack(run, stack, `Stack ${stack}`, refreshes(stack));
  }
}

/** Whether a cluster is complete and answers: a server answers before its agents have joined, and apps may be there by then. */
const isWhole = async (cluster: string): Promise<boolean> =>
  recordedNodes(await stateOf(cluster)) !== undefined && (await answers(cluster));

/**
 * The first stack on each cluster that this run creates, if both are empty: nothing can be lost, and its
 * program starts while the cluster comes up. Later stacks find what it created.
 * @returns those stacks, by cluster stack.
 */
async function firstOnNewClusters({ stacks, found }: UpRun): Promise<ReadonlyMap<string, string>> {
  const together = new Map<string, string>();
  for (const { stack, cluster } of found.apps) {
    const isFirst = stacks.includes(cluster) && !together.has(cluster);
    if (isFirst && !(await hasResources(stack)) && !(await hasResources(cluster)))
      together.set(cluster, stack);
  }
  return together;
}

/** Resources that create a cluster's first servers. */
const servers = /:(K3sStart|K3dCluster)\$/;

/**
 * Creates a cluster, and starts a stack's program once the API server answers: until then the servers need the CPUs, and then
 * they wait for seconds. If the stack fails before the cluster is up, it is tried again afterwards: an app's failure never
 * interrupts an installation, and a cluster that is coming up may fail what it would not when it is up.
 */
async function applyTogether(run: UpRun, cluster: string, apps: string): Promise<void> {
  const begun = Promise.withResolvers<void>();
  const answering = Promise.withResolvers<void>();
  const ended = Promise.withResolvers<void>();
  const onMade = (types: string) => {
    if (servers.test(types)) begun.resolve();
  };
  let isUp = false;
  const makes = applied(run, cluster, `Stack ${cluster}`, { refresh: false, onMade });
  const isMade: Step = {
    ...makes,
    run: async (progress, signal) => {
      const result = await makes.run(progress, signal);
      isUp = true;
      for (const { resolve } of [begun, answering, ended]) resolve();
      return result;
    },
  };
  const folder = earlyFolder(cluster);
  const removed = () => rm(folder, { recursive: true, force: true });
  // An earlier run that was killed may have left what it knew of another cluster.
  await removed();
  const follows = applied(run, apps, `Stack ${apps}`, {
    refresh: false,
    early: folder,
    cluster: ended.promise,
  });
  const waits: Step = {
    ...follows,
    run: async (progress, signal) => {
      await unlessStopped(begun.promise, signal);
      const done = new AbortController();
      const until = AbortSignal.any([signal, done.signal]);
      let wasUp = false;
      const early = prepareEarly(run.found, cluster, folder, until, answering.resolve);
      try {
        await unlessStopped(answering.promise, signal);
        wasUp = isUp;
        return await follows.run(progress, signal);
      } catch (error) {
        // A refusal is about the cluster as the program found it: K3s brings namespaces and classes of manifests only later.
        const isRefusal = error instanceof LabError && error.exitCode === 2;
        if (signal.aborted || (isRefusal ? wasUp : isUp)) throw error;
        await unlessStopped(ended.promise, signal);
        progress("trying again, now that the cluster is up");
        return await applied(run, apps, `Stack ${apps}`, { refresh: false }).run(progress, signal);
      } finally {
        done.abort();
        await early;
        await removed();
      }
    },
  };
  await runSteps([[isMade, waits]], run.stopping);
}

const isApps = (stack: string): boolean => isOnCluster(programOf(stack));

const isOnNewCluster = ({ found, newClusters }: UpRun, stack: string): boolean =>
  found.apps.some((one) => one.stack === stack && newClusters.has(one.cluster));

/**
 * Runs Pulumi for a stack in its own step, and records the result.
 * @param refresh whether Pulumi reads the actual state.
 */
export const applyStack = (run: UpRun, stack: string, title: string, refresh: boolean): Promise<void> =>
  runSteps([[applied(run, stack, title, { refresh })]], run.stopping);

/** What differs between runs of Pulumi. */
interface Apply extends Required<Pick<RunOptions, "refresh">>, Pick<RunOptions, "onMade"> {
  /** Where the program of apps looks for how far their cluster is. Default: it is up. */
  readonly early?: string;
  /** Resolves when the cluster is up: before, nobody knows whether the apps are up to date. Default: it is up. */
  readonly cluster?: Promise<void>;
}

function applied(run: UpRun, stack: string, title: string, { refresh, onMade, early, cluster }: Apply): Step {
  const { previews, settings } = run;
  return {
    title,
    endsWithin: pulumiStopsWithin,
    keepsLines: run.watch !== undefined,
    run: async (progress, signal) => {
      const sources = await sourcesOf(stack, settings.values);
      // On a new cluster, the apps in Pulumi's state no longer exist.
      const isGone = isOnNewCluster(run, stack) && (await hasResources(stack));
      const given = { ...(onMade ? { onMade } : {}), ...(early ? { early } : {}) };
      const options = { refresh: refresh || isGone, ...given, signal };
      const changes = await withImages(run, stack, options, () => runUp(run, stack, progress, options));
      if (!isApps(stack) && ("replace" in changes || (!("same" in changes) && "create" in changes)))
        run.newClusters.add(stack);
      if (hasChanged(changes)) {
        run.changed = true;
        previews.outdate();
      }
      if (cluster) await unlessStopped(cluster, signal);
      await noteUpToDate(stack, settings.values, sources);
      return describeChanges(changes);
    },
  };
}

/** Runs Pulumi, and meanwhile loads a new stack's images into the nodes: Pulumi needs seconds before it gets there. */
async function withImages<T>(
  { found }: UpRun,
  stack: string,
  { signal, early }: Pick<Apply, "early"> & { readonly signal: AbortSignal },
  work: () => Promise<T>,
): Promise<T> {
  const isNew = isApps(stack) && !(await hasResources(stack));
  const done = new AbortController();
  const load = async () => {
    const isLoaded = await loadEarly(found, stack, AbortSignal.any([signal, done.signal]));
    if (isLoaded && early) await writeWhole(earlyImages(early), "");
  };
  // Without the note, the program waits until the cluster is up.
  const loading = isNew ? load().catch(() => {}) : undefined;
  try {
    return await work();
  } finally {
    done.abort();
    await loading;
  }
}

/** Runs `pulumi up` of a stack. */
async function runUp(
  run: UpRun,
  stack: string,
  progress: Progress,
  options: Apply & { readonly signal: AbortSignal },
): Promise<Changes> {
  const createsNothing = run.previews.createsNothing(stack, options.refresh);
  const endWatch = run.watch?.(progress);
  const config = [...run.found.apps, ...run.found.external].find((one) => one.stack === stack)?.config;
  const { end, ...stuck } = config ? stopWhereStuck(askCluster(stack, config)) : nothingStuck;
  try {
    const { early } = options;
    const own = { ...programVariables(run, stack), ...(early ? { [earlyVariable]: early } : {}) };
    const attempt = (environment: Record<string, string>, exclude: readonly string[] = []) =>
      untilDone(stack, () =>
        runStack("up", stack, { ...own, ...environment }, progress, { ...options, ...stuck, exclude }),
      );
    const changes = await upWithForcedFields(createsNothing, attempt, () => {
      // Whatever refuses the rest, the attempt that met the conflict has begun.
      run.touched = true;
      progress("setting back what kubectl has set, then creating what is new");
      return previewStack(stack, { ...own, ...forceFields }, options);
    });
    run.touched = true;
    return changes;
  } catch (error) {
    // The program refuses bad input before it creates anything.
    run.touched ||= !(error instanceof LabError && error.exitCode === 2);
    throw error;
  } finally {
    await Promise.all([endWatch?.(), end()]);
  }
}

/** A stack without Deployments. */
const nothingStuck = { end: async () => {} };

/** The environment of a stack's program, which exits if its preconditions no longer hold. */
function programVariables({ settings, preconditions }: UpRun, stack: string): Record<string, string> {
  const expected = preconditions.get(stack);
  return {
    ...labVariables(settings.values),
    ...(expected === undefined ? {} : { [preconditionsVariable]: JSON.stringify(expected) }),
  };
}

const hasChanged = (changes: Changes): boolean =>
  Object.keys(changes).some((operation) => !unchanged.includes(operation));

/**
 * What a stack would lose: nothing if it has no resources or is unchanged since the last `up`.
 * @param refresh whether to compare with the actual state instead of Pulumi's.
 */
async function previewLosses(run: UpRun, stack: string, refresh: boolean): Promise<StackPreview> {
  const { settings, previews, preconditions } = run;
  const state = await stateOf(stack);
  if (state.length === 0) return { losses: [], isUpToDate: false };
  const found = await observeStack(stack, settings.values);
  preconditions.set(stack, found.preconditions);
  if (!refresh && found.isUpToDate) {
    // If another stack's run changes something, its dependents are previewed again.
    previews.note(stack, [], refresh);
    return { losses: [], isUpToDate: true };
  }
  const steps = await previewStack(stack, { ...programVariables(run, stack), ...forceFields }, { refresh });
  previews.note(stack, steps, refresh);
  return {
    losses: await lossesOf(stack, steps, { provider: recordedIn(state).provider }),
    isUpToDate: false,
  };
}

/** Previews a stack in its own step and asks afterwards: a question needs the terminal to itself. */
export async function askLate(run: UpRun, stack: string, refresh: boolean): Promise<void> {
  let found: StackPreview | undefined;
  const step: Step = {
    title: `Preview of ${stack}`,
    run: async () => {
      found = await previewLosses(run, stack, refresh);
      return undefined;
    },
  };
  await runSteps([[step]], run.stopping);
  await confirmLosses(found?.losses ?? [], run.replace, undefined, { touched: run.changed });
}
