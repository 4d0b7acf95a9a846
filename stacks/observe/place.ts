import { join } from "node:path";
import { execa, type Options } from "execa";
import { LabError } from "../lib/errors.ts";
import { readKubeconfig } from "../lib/kube-access.ts";
import { connect, type Reached, reach } from "../lib/kubernetes.ts";
import { labDir, root, stackDir } from "../lib/paths.ts";
import type { OnCluster } from "../model/config.ts";
import { kubeconfigFile } from "../model/kubeconfig.ts";

/** How to reach the cluster that apps run on. */
export interface Place {
  readonly kubeconfig: string;
  /** Undefined for a lab cluster, of which any server will do. */
  readonly context: string | undefined;
}

/** The kubeconfig of a cluster stack. */
export const kubeconfigOf = (stack: string): string => join(stackDir(stack), "kubeconfig");

/** @param directory the folder of the stack files. Default: the checkout. */
export const placeOf = ({ cluster }: Pick<OnCluster, "cluster">, directory: string = root): Place =>
  "stack" in cluster
    ? { kubeconfig: kubeconfigOf(cluster.stack), context: undefined }
    : { kubeconfig: kubeconfigFile(cluster.kubeconfig, directory), context: cluster.context };

/** @param patience a factor for the timeouts. Default: 1. */
export const reachPlace = async ({ kubeconfig, context }: Place, patience = 1): Promise<Reached> =>
  context === undefined
    ? reach(kubeconfig, 5000 * patience)
    : { context, ...connect(await readKubeconfig(kubeconfig, context), 5000 * patience) };

/** Queries the cluster that apps run on. @throws LabError if it does not answer. */
export async function askPlace<T>(place: Place, ask: (api: Reached) => Promise<T>): Promise<T> {
  let api: Reached | undefined;
  try {
    api = await reachPlace(place);
    return await ask(api);
  } catch (cause) {
    if (cause instanceof LabError) throw cause;
    throw new LabError(`The cluster could not be queried: ${(cause as Error).message}.`, { cause });
  } finally {
    api?.close();
  }
}

/** Runs the lab's kubectl on a cluster; a failure does not throw. */
export const kubectl = <T extends Options>(
  { kubeconfig, context }: Place,
  args: readonly string[],
  options: T,
) =>
  execa("kubectl", ["--kubeconfig", kubeconfig, ...(context ? ["--context", context] : []), ...args], {
    ...options,
    env: { PATH: `${join(labDir, "bin")}:${process.env.PATH}` },
    reject: false as const,
  });
