import { createHash } from "node:crypto";
import { glob, readFile } from "node:fs/promises";
import { join } from "node:path";
import { writeWhole } from "../stacks/lib/files.ts";
import type { HostSettings } from "../stacks/lib/host-settings.ts";
import { root, stackDir, stateFile } from "../stacks/lib/paths.ts";
import { programOf, readStackFile, stackFile } from "../stacks/model/config.ts";
import { readK3dFile } from "../stacks/model/k3d-file.ts";
import { observeK3d } from "../stacks/observe/k3d-host.ts";
import { observeMachines } from "../stacks/observe/machines.ts";
import { kubeconfigCopy, observeKubeconfig, observeNodes } from "../stacks/observe/nodes.ts";
import { providerOf } from "../stacks/observe/recorded.ts";

/**
 * Whether everything that a stack's `up` depends on is as it was after the last one: its file, the programs, Pulumi's
 * state and the machines themselves. Then stacks run side by side and nothing is asked before; Pulumi still judges for
 * itself. Of apps on a cluster of somebody else's it is never known: that may be another one since.
 */
export async function isSettled(stack: string, settings: HostSettings): Promise<boolean> {
  if (programOf(stack) === "apps" && !("stack" in (await readStackFile(stack as "apps", root)).cluster))
    return false;
  const noted = await readFile(noteFile(stack), "utf8").catch(() => undefined);
  return noted !== undefined && noted === (await fingerprint(stack, settings));
}

/** Notes that a stack is up as its file says. */
export async function noteSettled(stack: string, settings: HostSettings): Promise<void> {
  await writeWhole(noteFile(stack), await fingerprint(stack, settings));
}

const noteFile = (stack: string): string => join(stackDir(stack), "settled");

async function fingerprint(stack: string, settings: HostSettings): Promise<string> {
  const hash = createHash("sha256").update(JSON.stringify(settings));
  const files = [
    join(root, stackFile(stack)),
    join(root, "package-lock.json"),
    stateFile(stack),
    ...(await Array.fromAsync(glob("{stacks,vagrant,apps}/**/*.*", { cwd: root })))
      .sort()
      .map((file) => join(root, file)),
  ];
  for (const file of files) hash.update(file).update(await readFile(file).catch(() => ""));
  const now = "absent";
  const program = programOf(stack);
  if (program === "cluster") {
    const config = await readStackFile(stack as "cluster", root);
    const provider = await providerOf(stack, config, settings);
    if (provider !== undefined) {
      const seen = await observeMachines(stack, provider, config.machines, now);
      const running = config.machines.filter(({ name }) => seen.get(name)?.state === "running");
      const nodes = await observeNodes(stack, running);
      const certificates = [...nodes.values()].flatMap(({ certificate }) => certificate ?? []);
      const kubeconfig = await observeKubeconfig(kubeconfigCopy(stack), certificates);
      hash.update(JSON.stringify([...seen, ...nodes, kubeconfig]));
    }
  }
  if (program === "k3d") {
    const { config } = await readStackFile(stack as "k3d", root);
    const file = await readK3dFile(config, root);
    hash.update(JSON.stringify(file));
    const { cluster, agents, registry, certificates } = await observeK3d(stack, file, now);
    const kubeconfig = await observeKubeconfig(kubeconfigCopy(stack), certificates);
    hash.update(JSON.stringify([cluster, [...agents], registry, kubeconfig]));
  }
  return hash.digest("hex");
}
