import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { readStackFile } from "../../stacks/config.ts";
import { chooseProvider } from "../../stacks/provider.ts";
import { lab } from "../bench/contest.ts";
import { appsWatch, type SubstrateName, substrates } from "../bench/substrates.ts";
import { timed } from "../bench/timed.ts";
import { LabError } from "../errors.ts";
import { type Run, run } from "../host/commands.ts";
import { ensureDocker } from "../host/docker.ts";
import { root, stackDir } from "../paths.ts";
import type { Progress } from "../progress.ts";
import type { Site } from "./index.ts";
import type { Extent } from "./results.ts";
import { subjects } from "./subjects.ts";
import { withChangedFile } from "./topology.ts";
import { usageOf } from "./usage.ts";
import { readNodes, stopwatch, untilReady } from "./watches.ts";

/** What the stack files say of a whole lab on a substrate. */
export async function readExtent(name: SubstrateName): Promise<Extent> {
  const { title, topology } = subjects[name];
  const { stacks } = substrates[name];
  const text = await readFile(join(root, topology.file), "utf8");
  const config = await readStackFile(stacks[1], root);
  const apps = "apps" in config ? config.apps : [];
  return {
    title,
    stacks: stacks.join(" "),
    nodes: topology.nodes(text),
    apps: apps.length,
    pods: apps.reduce((sum, { replicas }) => sum + replicas, 0),
  };
}

/** The real lab on a substrate. @param log gets all that is printed, each line with its time. */
export async function realSite(name: SubstrateName, log: string, progress: Progress): Promise<Site> {
  const { title, labels, topology } = subjects[name];
  const { stacks } = substrates[name];
  const [cluster] = stacks;
  const { nodes } = await readExtent(name);
  const watchApps = await appsWatch(substrates[name]);
  const look = () => readNodes(join(stackDir(cluster), "kubeconfig"));
  const seen = (seconds: number | undefined, what: string): number => {
    if (seconds !== undefined) return seconds;
    throw new LabError(`\`lab up\` returned, and ${what} was not seen from outside; what it printed: ${log}`);
  };
  const down = async () => (await timed({ file: lab, args: ["down", ...stacks], log })).returned;
  const up = async () => {
    const times = stopwatch({ nodesReady: untilReady(nodes, look), appsAnswering: watchApps });
    await timed({ file: lab, args: ["up", ...stacks], log, watch: times.watch });
    return {
      nodesReady: seen(times.seen.nodesReady, "that all nodes are Ready"),
      appsAnswering: seen(times.seen.appsAnswering, "that all apps answer"),
    };
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
    up,
    usage: () => usageOf(labels, docker),
    addNode: () =>
      withChangedFile(join(root, topology.file), topology.oneMore, async () => {
        const watch = untilReady(nodes + 1, look);
        const { answering } = await timed({ file: lab, args: ["up", cluster], log, watch });
        return seen(answering, "that the added node is Ready");
      }),
    down,
  };
}

/** Runs commands as they are, but docker with the daemon at this address. */
export const withDockerHost =
  (host: string, inner: Run = run): Run =>
  ([file = "", ...args], options) =>
    inner(file === "docker" ? [file, "--host", host, ...args] : [file, ...args], options);

/**
 * What virtual machines take is not in containers' cgroups.
 * @throws LabError (exit code 2) where `cluster` would be made of such.
 */
export async function requireContainers(choose = chooseProvider): Promise<void> {
  const { provider, reason } = await choose((await readStackFile("cluster", root)).provider);
  if (provider === "docker") return;
  throw new LabError(
    `The machines of \`cluster\` would be VMs of ${provider} here (${reason}), whose memory and disk cannot be compared with those of containers: set \`k3s-lab:provider: docker\` in Pulumi.cluster.yaml.`,
    { exitCode: 2 },
  );
}
