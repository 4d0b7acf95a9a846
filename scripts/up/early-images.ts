import { setTimeout } from "node:timers/promises";
import { execa } from "execa";
import { appImageRef } from "../../stacks/model/app-image.ts";
import { programOf } from "../../stacks/model/config.ts";
import { imageLoader, loaderVariables, type NodeAddress } from "../../stacks/model/image-loader.ts";
import { agentsOf, serversOf } from "../../stacks/model/k3d-file.ts";
import { sshAlias } from "../../stacks/model/ssh-config.ts";
import { hasImage } from "../../stacks/observe/images.ts";
import type { Stacks } from "../lab.ts";

/** Milliseconds between two questions to a node whose containerd does not answer yet. */
const interval = 500;

/**
 * Loads the apps' image into the nodes of a cluster that comes up, each as soon as its containerd answers: for ten seconds
 * K3s waits for the network of pods and leaves the processors idle. It only saves time: what fails here the stack's own
 * commands do afterwards, and say why.
 *
 * @param stack the stack of the apps.
 * @param signal ends it.
 */
export async function loadEarly(found: Stacks, stack: string, signal: AbortSignal): Promise<void> {
  const own = found.apps.find((one) => one.stack === stack);
  if (own === undefined || own.config.image !== undefined || programOf(stack) !== "apps") return;
  const image = await appImageRef("web");
  const load = async (node: NodeAddress) => {
    while (!signal.aborted) {
      const has = await hasImage(node, image);
      if (has) return;
      if (has === undefined) {
        await setTimeout(interval, undefined, { signal });
        continue;
      }
      const env = loaderVariables(node, image);
      await execa("/bin/sh", ["-c", imageLoader(node)], { env, cancelSignal: signal, stdin: "ignore" });
      return;
    }
  };
  await Promise.allSettled(nodesOf(found, own.cluster).map(load));
}

/** The nodes that a cluster will have. */
function nodesOf({ machines, k3d }: Stacks, cluster: string): readonly NodeAddress[] {
  const ofMachines = machines.find(([stack]) => stack === cluster)?.[1].machines ?? [];
  const file = k3d.find(([stack]) => stack === cluster)?.[1];
  const containers = file ? [...serversOf(file), ...agentsOf(file).map(({ name }) => name)] : [];
  return [
    ...ofMachines.map(({ name }) => ({ name, address: `ssh://${sshAlias(cluster, name)}` })),
    ...containers.map((name) => ({ name, address: `docker://${name}` })),
  ];
}
