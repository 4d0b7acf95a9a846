import { isReady, type KubernetesApi, type Pod, podState, reach } from "../../stacks/lib/kubernetes.ts";
import { root, stackDir } from "../../stacks/lib/paths.ts";
import { type App, isOnCluster, programOf, readOnCluster } from "../../stacks/model/config.ts";
import { type Run, run as runHere } from "../host/commands.ts";
import { isOfAddOn, workloadOf } from "../verify/cluster.ts";
import { isAppPod, namespacesOf } from "../verify/from-pods.ts";

interface Place {
  readonly kubeconfig: string;
  readonly namespace: string;
  readonly isOwn: (pod: Pod) => boolean;
}

/**
 * Restarts waiting pods that serve no request, of K3s's add-ons and the lab's apps: the kubelet retries only after up
 * to five minutes, though the cause may be gone. Their controllers recreate them, and they have nothing to lose.
 * @param options.hanging whether to include pods that are still being created.
 * @returns what was done, in words.
 */
export async function restartLatePods(
  stacks: readonly string[],
  { hanging = false, run = runHere }: { readonly hanging?: boolean; readonly run?: Run } = {},
): Promise<readonly string[]> {
  const places = (await Promise.all(stacks.map(placesOf))).flat();
  const done = places.map(async ({ kubeconfig, namespace, isOwn }) => {
    const api = await reach(kubeconfig).catch(() => undefined);
    const found = api && (await findLate(api, namespace, isOwn, hanging).catch(() => []));
    api?.close();
    if (!found?.length) return [];
    const names = found.map(({ metadata: { name } }) => name);
    const where = ["--kubeconfig", kubeconfig, "--context", api?.context ?? "", "--namespace", namespace];
    // A hanging kubelet cannot confirm that nothing runs, which is known here.
    const remove = ["delete", "pod", "--ignore-not-found", "--force", "--grace-period=0", "--wait=false"];
    const { exitCode } = await run(["kubectl", ...where, ...remove, ...names], { timeout: 20_000 });
    return exitCode === 0 ? found.map((pod) => `${pod.metadata.name}, which was ${podState(pod)}`) : [];
  });
  return (await Promise.all(done)).flat();
}

async function placesOf(stack: string): Promise<readonly Place[]> {
  const kubeconfigOf = (cluster: string) => `${stackDir(cluster)}/kubeconfig`;
  if (!isOnCluster(programOf(stack)))
    return [{ kubeconfig: kubeconfigOf(stack), namespace: "kube-system", isOwn: isOfAddOn }];
  const { cluster, apps } = await readOnCluster(stack, root);
  if (!("stack" in cluster)) return [];
  const kubeconfig = kubeconfigOf(cluster.stack);
  return namespacesOf(apps).map((namespace) => {
    const here = apps.filter((app) => app.namespace === namespace);
    return { kubeconfig, namespace, isOwn: (pod) => isPodOf(pod, here) };
  });
}

/** Whether a pod belongs to the Deployment of one of these apps: someone may have copied a pod, labels included. */
export const isPodOf = (pod: Pod, apps: readonly Pick<App, "name">[]): boolean =>
  apps.some((app) => isAppPod(pod, [app]) && workloadOf(pod) === `ReplicaSet ${app.name}`);

/** Reasons that the kubelet retries after a back-off. */
const failed = /BackOff\b|^ErrImage|^CreateContainer\w*Error|^RunContainerError/;

/** Pods that a controller recreates and whose containers are all waiting. */
export async function findLate(
  api: KubernetesApi,
  namespace: string,
  isOwn: (pod: Pod) => boolean,
  hanging: boolean,
): Promise<readonly Pod[]> {
  const waiting = (await api.pods(namespace)).filter((pod) => {
    const { deletionTimestamp, ownerReferences = [] } = pod.metadata;
    const staysAway = deletionTimestamp !== undefined || ownerReferences.length === 0;
    return isOwn(pod) && !staysAway && !isReady(pod) && isIdle(pod);
  });
  const late = waiting.filter((pod) => failed.test(podState(pod)));
  const making = waiting.filter((pod) => podState(pod) === "ContainerCreating");
  if (!hanging || making.length === 0) return late;
  // Do not interrupt an image pull.
  const pulling = new Set(
    (await api.events(namespace))
      .filter(({ reason }) => reason === "Pulling")
      .map(({ involvedObject }) => involvedObject.name),
  );
  return [...late, ...making.filter(({ metadata }) => !pulling.has(metadata.name))];
}

/** Whether none of a pod's containers runs; an unscheduled pod has none. */
const isIdle = ({ status: { containerStatuses: all } }: Pod): boolean =>
  all.length > 0 && all.every(({ state: { waiting, terminated } }) => waiting ?? terminated);
