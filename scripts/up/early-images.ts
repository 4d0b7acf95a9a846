import { join } from "node:path";
import { setTimeout } from "node:timers/promises";
import { type ExecaError, execa } from "execa";
import { reach } from "../../stacks/lib/kubernetes.ts";
import { labDir } from "../../stacks/lib/paths.ts";
import { endGroup } from "../../stacks/lib/processes.ts";
import { stateOf } from "../../stacks/lib/state.ts";
import { imageLoader, loaderVariables, type NodeAddress } from "../../stacks/model/image-loader.ts";
import { agentsOf, containerAddress, serversOf } from "../../stacks/model/k3d-file.ts";
import { machineAddress } from "../../stacks/model/ssh-config.ts";
import { type OwnImage, ownImageRefs, ownImagesOf } from "../../stacks/observe/own-images.ts";
import type { Stacks } from "../lab.ts";
import { unlessStopped } from "../report.ts";
import { recordedNodes } from "../up-to-date.ts";

/**
 * Milliseconds between polls of a node whose containerd does not answer yet: the first, and the longest. Each may be
 * a login, and an installation may take half an hour.
 */
const [interval, longest] = [500, 5_000];

/** How to find nodes and to load an image into one; tests fake all. */
export interface ImageStore {
  /** Of a cluster that is up or being created. */
  readonly nodes: (found: Stacks, cluster: string) => Promise<readonly NodeAddress[]>;
  /** @returns undefined if the node does not answer. */
  readonly load: (node: NodeAddress, image: string, signal: AbortSignal) => Promise<"done" | undefined>;
  readonly ref: (image: OwnImage) => Promise<string>;
}

/** Exit code of stacks/lib/load-image.sh if the node's containerd does not answer. */
const noAnswer = 75;

const ofNodes: ImageStore = {
  nodes: async (found, cluster) => {
    const recorded = recordedNodes(await stateOf(cluster));
    if (recorded === undefined) return nodesOf(found, cluster);
    // Somebody else's cluster may have the same names; its certificates differ.
    return (await answers(cluster)) ? recorded : [];
  },
  load: (node, image, signal) =>
    runUntil("/bin/sh", ["-c", imageLoader(node)], loaderVariables(node, image), signal).then(
      () => "done",
      (error: ExecaError) => {
        if (error.exitCode === noAnswer) return undefined;
        throw error;
      },
    ),
  ref: (image) => ownImageRefs[image](),
};

/** Runs a program and kills it with its children when the signal aborts; does not wait for what hangs. */
export async function runUntil(
  file: string,
  args: readonly string[],
  env: Readonly<Record<string, string>>,
  signal: AbortSignal,
): Promise<void> {
  const program = execa(file, args, { env, stdio: "ignore", detached: true });
  const { pid } = program;
  const end = () => {
    if (pid !== undefined) endGroup(pid);
  };
  signal.addEventListener("abort", end, { once: true });
  if (signal.aborted) end();
  try {
    await program;
  } finally {
    signal.removeEventListener("abort", end);
  }
}

/** Asks until there is an answer, ever more rarely. */
export async function untilKnown<T>(ask: () => Promise<T | undefined>, signal: AbortSignal): Promise<T> {
  let answer = await ask();
  for (let pause = interval; answer === undefined; pause = Math.min(pause * 1.2, longest)) {
    await setTimeout(pause, undefined, { signal });
    answer = await ask();
  }
  return answer;
}

/**
 * Loads a stack's images into its cluster's nodes, each as soon as its containerd answers. It only saves time
 * (docs/decisions/048-early-apps.md): what fails here is done again, and reported, by the stack's own commands.
 * @param stack the stack that needs the images. @returns whether every node holds them.
 */
export async function loadEarly(
  found: Stacks,
  stack: string,
  signal: AbortSignal,
  { nodes, load, ref }: ImageStore = ofNodes,
): Promise<boolean> {
  const own = found.apps.find((one) => one.stack === stack);
  if (own === undefined) return false;
  const loadInto = async (node: NodeAddress) => {
    for (const name of ownImagesOf(own.config)) {
      const image = await ref(name);
      await untilKnown(() => load(node, image, signal), signal);
    }
  };
  const all = nodes(found, own.cluster).then((each) => Promise.allSettled(each.map(loadInto)));
  // A hanging node must not delay the end of the run.
  const results = await unlessStopped(all, signal).catch(() => undefined);
  return results?.every(({ status }) => status === "fulfilled") === true;
}

/** The nodes that a cluster of this run will have. */
export function nodesOf({ machines, k3d }: Stacks, cluster: string): readonly NodeAddress[] {
  const ofMachines = machines.find(([stack]) => stack === cluster)?.[1].machines ?? [];
  const file = k3d.find(([stack]) => stack === cluster)?.[1];
  const containers = file ? [...serversOf(file), ...agentsOf(file).map(({ name }) => name)] : [];
  return [
    ...ofMachines.map(({ name }) => ({ name, address: machineAddress(cluster, name) })),
    ...containers.map((name) => ({ name, address: containerAddress(name) })),
  ];
}

/** Whether the cluster that a stack created answers. */
export async function answers(stack: string): Promise<boolean> {
  const api = await reach(join(labDir, stack, "kubeconfig")).catch(() => undefined);
  const version = await api?.version().catch(() => undefined);
  api?.close();
  return version !== undefined;
}
