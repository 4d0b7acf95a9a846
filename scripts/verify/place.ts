import { join } from "node:path";
import { LabError } from "../../stacks/lib/errors.ts";
import { readKubeconfig } from "../../stacks/lib/kube-access.ts";
import { connect, type Reached, reach } from "../../stacks/lib/kubernetes.ts";
import { root, stackDir } from "../../stacks/lib/paths.ts";
import type { OnCluster } from "../../stacks/model/config.ts";
import { kubeconfigFile } from "../../stacks/model/kubeconfig.ts";

/** How the cluster that apps run on is reached. */
export interface Place {
  readonly kubeconfig: string;
  /** Undefined for a cluster of the lab's, any of whose servers will do. */
  readonly context: string | undefined;
}

/** The kubeconfig of a stack that makes a cluster. */
export const kubeconfigOf = (stack: string): string => join(stackDir(stack), "kubeconfig");

/** @param directory the folder of the stack files. Default: the checkout. */
export const placeOf = ({ cluster }: Pick<OnCluster, "cluster">, directory: string = root): Place =>
  "stack" in cluster
    ? { kubeconfig: kubeconfigOf(cluster.stack), context: undefined }
    : { kubeconfig: kubeconfigFile(cluster.kubeconfig, directory), context: cluster.context };

/** @param patience how many times longer than usual an answer may take. Default: 1. */
export const reachPlace = async ({ kubeconfig, context }: Place, patience = 1): Promise<Reached> =>
  context === undefined
    ? reach(kubeconfig, 5000 * patience)
    : { context, ...connect(await readKubeconfig(kubeconfig, context), 5000 * patience) };

/** Asks the cluster that apps run on. @throws LabError where it does not answer. */
export async function askPlace<T>(place: Place, ask: (api: Reached) => Promise<T>): Promise<T> {
  let api: Reached | undefined;
  try {
    api = await reachPlace(place);
    return await ask(api);
  } catch (cause) {
    if (cause instanceof LabError) throw cause;
    throw new LabError(`The cluster cannot be asked: ${(cause as Error).message}.`, { cause });
  } finally {
    api?.close();
  }
}
