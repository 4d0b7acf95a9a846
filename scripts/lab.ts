import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { ifThere } from "../stacks/lib/files.ts";
import { type HostSettings, writeHostSettings } from "../stacks/lib/host-settings.ts";
import { knownLabId } from "../stacks/lib/lab-id.ts";
import { labDir, root, stackDir } from "../stacks/lib/paths.ts";
import { stateOf } from "../stacks/lib/state.ts";
import { readClusterPlan } from "../stacks/model/cluster-plan.ts";
import {
  type ClusterConfig,
  type OnCluster,
  programOf,
  readOnCluster,
  readStackFile,
} from "../stacks/model/config.ts";
import { type K3dFile, readK3dFile } from "../stacks/model/k3d-file.ts";
import { refuseCertificates } from "../stacks/observe/certificates.ts";
import { type ExternalCluster, externalCluster } from "../stacks/observe/external-cluster.ts";
import { refuseIngressOf, refuseInTheWay, refuseTls, refuseWithout } from "../stacks/observe/lab-cluster.ts";
import { knownStacks } from "../stacks/observe/recorded.ts";
import { labVariables } from "./environment.ts";
import type { Changes } from "./pulumi.ts";

/** Tools that every stack needs; `kubectl` is the K3s binary under another name. */
export const commonTools = [
  "pulumi",
  "pulumi-language-nodejs",
  "pulumi-kubernetes",
  "pulumi-command",
  "k3s",
] as const;

/** What was detected on this computer; updates the environment of this process and its children. */
export class Settings {
  values: HostSettings;

  constructor(values: HostSettings) {
    this.values = values;
    Object.assign(process.env, labVariables(values));
  }

  /** Applies the changes; a value of undefined removes the setting. */
  set(changes: { readonly [Key in keyof HostSettings]?: HostSettings[Key] | undefined }): void {
    const all = Object.entries({ ...this.values, ...changes }).filter(([, value]) => value !== undefined);
    this.values = Object.fromEntries(all);
    Object.assign(process.env, labVariables(this.values));
  }

  save(): Promise<void> {
    return writeHostSettings(this.values);
  }
}

export type Stacks = Awaited<ReturnType<typeof readStacks>>;

/** Reads every stack file first, so that an error in the last is reported before the first stack is touched. */
export async function readStacks(stacks: readonly string[]) {
  const machines: (readonly [string, ClusterConfig])[] = [];
  const k3d: (readonly [string, K3dFile])[] = [];
  const external: ExternalApps[] = [];
  const apps: OwnApps[] = [];
  for (const stack of stacks) {
    const program = programOf(stack);
    if (program === "cluster") machines.push([stack, await readStackFile(stack as "cluster", root)]);
    else if (program === "k3d") {
      const { config } = await readStackFile(stack as "k3d", root);
      k3d.push([stack, await readK3dFile(config, root)]);
    } else {
      const config = await readOnCluster(stack, root);
      await refuseCertificates(stack, config);
      const { cluster, ingress } = config;
      if ("stack" in cluster) {
        const plan = await readClusterPlan(cluster.stack, root);
        refuseIngressOf(cluster.stack, ingress, plan);
        refuseWithout(cluster.stack, config, plan);
        refuseTls(cluster.stack, config, plan);
        apps.push({ stack, cluster: cluster.stack, config });
      } else external.push({ stack, cluster, config });
    }
  }
  return { machines, k3d, external, apps };
}

/** Apps on a cluster that no stack made. */
interface ExternalApps {
  readonly stack: string;
  readonly cluster: ExternalCluster;
  readonly config: OnCluster;
}

interface OwnApps {
  readonly stack: string;
  readonly cluster: string;
  readonly config: OnCluster;
}

/**
 * Refuses an external cluster that the apps cannot use. Changes nothing.
 * @throws LabError (exit code 2).
 */
export const refuseExternal = async ({ stack, cluster, config }: ExternalApps): Promise<unknown> =>
  externalCluster(cluster, config, { lab: await knownLabId(), stack });

/**
 * Refuses apps that conflict with other owners' objects on a running cluster. Changes nothing.
 * @throws LabError (exit code 2).
 */
export const refuseOthersObjects = async ({ stack, cluster, config }: OwnApps): Promise<void> =>
  refuseInTheWay(cluster, config, { lab: await knownLabId(), stack });

const hasFiles = async (folder: string): Promise<boolean> =>
  ((await ifThere(readdir(folder, { recursive: true, withFileTypes: true }))) ?? []).some(
    (entry) => !entry.isDirectory(),
  );

/** Whether a stack has created machines or nodes, by the scripts' notes and Pulumi's state. */
export async function hasMachines(stack: string): Promise<boolean> {
  // Vagrant leaves empty folders behind.
  for (const folder of ["machines", "vagrant/machines"])
    if (await hasFiles(join(stackDir(stack), folder))) return true;
  return (await stateOf(stack)).some(({ type }) => type === "command:local:Command");
}

/** Whether any stack of this checkout has created machines or nodes. */
export async function anyMachines(): Promise<boolean> {
  const entries = (await ifThere(readdir(labDir, { withFileTypes: true }))) ?? [];
  const folders = entries.filter((entry) => entry.isDirectory()).map(({ name }) => name);
  const all = [...new Set([...folders, ...(await knownStacks())])];
  return (await Promise.all(all.map(hasMachines))).some(Boolean);
}

/** What Pulumi does with a resource without changing anything. `read` is the first look at another stack's exports. */
export const unchanged: readonly string[] = ["same", "read"];

export function describeChanges(changes: Changes): string {
  const words = Object.entries(changes)
    .filter(([operation]) => !unchanged.includes(operation))
    .map(([operation, count]) => `${count} ${operation}`);
  return words.length ? words.join(", ") : "no change";
}
