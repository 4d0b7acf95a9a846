import { cp, mkdtemp, readFile, realpath, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, relative } from "node:path";
import { LabError, refusal } from "../../stacks/lib/errors.ts";
import { root } from "../../stacks/lib/paths.ts";
import type { Progress } from "../../stacks/lib/progress.ts";
import { readClusterPlan } from "../../stacks/model/cluster-plan.ts";
import { programOf, readStackFile } from "../../stacks/model/config.ts";
import { chooseProvider } from "../../stacks/model/provider.ts";
import { type Run, run } from "../host/commands.ts";
import { ensureDocker } from "../host/docker.ts";
import type { Extent, Measurement } from "./clusters-report.ts";
import type { Contender } from "./rounds.ts";
import { appsWatch, readApps, type Site } from "./substrates.ts";
import { timed } from "./timed.ts";
import { usageOf } from "./usage.ts";
import { readNodes, untilReady } from "./watches.ts";

/** What a copy of the checkout omits: what belongs to the original's lab, and what is large. */
const notCopied = [".lab", ".git", "node_modules"];

/**
 * Works in a copy of the checkout, whose stack files can be changed. Removes the copy unless its lab cannot be taken down.
 * @param takeDown takes down every lab of the copy; called if the work fails.
 * @throws LabError that names the copy if that fails too.
 */
export async function inCopy<T>(
  work: (checkout: string) => Promise<T>,
  takeDown: (checkout: string) => Promise<unknown>,
  original = root,
): Promise<T> {
  const copy = await mkdtemp(join(await realpath(tmpdir()), "k3s-lab-bench-"));
  const filter = (path: string) => !notCopied.includes(relative(original, path));
  await cp(original, copy, { recursive: true, filter });
  await symlink(join(original, "node_modules"), join(copy, "node_modules"));
  let result: T;
  try {
    result = await work(copy);
  } catch (cause) {
    await takeDown(copy).catch((error: Error) => {
      throw new LabError(
        `A lab from a copy of this checkout may still be up (${error.message}). Run \`${labOf(copy)} down\`, then remove ${copy}. The benchmark itself failed: ${(cause as Error).message}`,
        { cause },
      );
    });
    await rm(copy, { recursive: true, force: true });
    throw cause;
  }
  await rm(copy, { recursive: true, force: true });
  return result;
}

const labOf = (checkout: string): string => join(checkout, "scripts", "lab");

/** Takes down a checkout's labs. */
export const takeDownAll = (sites: readonly Site[], checkout: string, log: string): Promise<unknown> =>
  timed({ file: labOf(checkout), args: ["down", ...sites.flatMap(({ stacks }) => stacks)], log });

export async function readExtent({ title, stacks }: Site): Promise<Extent> {
  const [{ nodes }, { apps }] = await Promise.all([readClusterPlan(stacks[0], root), readApps(stacks[1])]);
  return {
    title,
    stacks: stacks.join(" "),
    nodes: nodes.length,
    apps: apps.length,
    pods: apps.reduce((sum, { replicas }) => sum + replicas, 0),
  };
}

/**
 * The real lab.
 * @param checkout a copy that may be changed. @param log receives all output, each line with its time.
 */
export async function realSite(
  site: Site,
  checkout: string,
  log: string,
  progress: Progress,
): Promise<Contender<Measurement>> {
  const { title, labels, topology, stacks } = site;
  const [cluster] = stacks;
  const { nodes } = await readExtent(site);
  const lab = labOf(checkout);
  const watchApps = await appsWatch(site);
  const readAll = () => readNodes(join(checkout, ".lab", cluster, "kubeconfig"));
  const seen = (seconds: number | undefined, what: string): number => {
    if (seconds !== undefined) return seconds;
    throw new LabError(`\`lab up\` returned, but it was not seen from outside ${what}; its output: ${log}`);
  };
  const down = async () => (await timed({ file: lab, args: ["down", ...stacks], log })).returned;
  const up = async () => {
    const watches = { nodesReady: untilReady(nodes, readAll), appsAnswering: watchApps };
    const { nodesReady, appsAnswering } = await timed({ file: lab, args: ["up", ...stacks], log, watches });
    return {
      nodesReady: seen(nodesReady, "that all nodes are Ready"),
      appsAnswering: seen(appsAnswering, "that all apps answer"),
    };
  };
  const addNode = async () => {
    const file = join(checkout, topology.file);
    const before = await readFile(file, "utf8");
    await writeFile(file, topology.oneMore(before));
    try {
      const watches = { ready: untilReady(nodes + 1, readAll) };
      const { ready } = await timed({ file: lab, args: ["up", cluster], log, watches });
      return seen(ready, "that the added node is Ready");
    } finally {
      await writeFile(file, before);
    }
  };
  let docker: Run = run;

  return {
    title,
    prepare: async () => {
      try {
        await timed({ file: lab, args: ["up", ...stacks], log });
      } finally {
        await down();
      }
    },
    ready: async () => {
      const host = await ensureDocker(progress);
      if (host !== undefined) docker = withDockerHost(host);
    },
    measure: async (step) => ({
      ...(await step("bringing it up", up)),
      ...(await step("measuring its usage", () => usageOf(labels(checkout), docker))),
      addNode: await step("adding a node", addNode),
      takeDown: await step("taking it down", down),
    }),
    takeDown: down,
  };
}

/** Runs commands unchanged, except docker, which uses the daemon at this address. */
export const withDockerHost =
  (host: string, inner: Run = run): Run =>
  ([file = "", ...args], options) =>
    inner(file === "docker" ? [file, "--host", host, ...args] : [file, ...args], options);

/**
 * What virtual machines use is not in containers' cgroups.
 * @throws LabError (exit code 2) if a cluster would be made of virtual machines.
 */
export async function requireContainers(sites: readonly Site[], choose = chooseProvider): Promise<void> {
  for (const [stack] of sites.map(({ stacks }) => stacks)) {
    if (programOf(stack) !== "cluster") continue;
    const { provider, reason } = await choose((await readStackFile(stack as "cluster", root)).provider);
    if (provider === "docker") continue;
    throw refusal(
      `The machines of \`${stack}\` would be VMs of ${provider} here (${reason}), whose memory and disk cannot be compared with those of containers: set \`k3s-lab:provider: docker\` in Pulumi.${stack}.yaml.`,
    );
  }
}
