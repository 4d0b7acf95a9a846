import { readFile } from "node:fs/promises";
import { LabError } from "../scripts/errors.ts";
import { connect, type IngressClass, readKubeconfig } from "../scripts/verify/kubernetes.ts";
import { managedIngress, managedTraefik } from "./config.ts";
import { kubeconfigFile, selectContext } from "./kubeconfig.ts";

/** A cluster that no stack of the lab made. */
export interface ForeignCluster {
  /** Kubeconfig file, as the stack file names it. */
  readonly kubeconfig: string;
  /** One of its contexts. */
  readonly context: string;
}

/** Who wants to use the cluster, and by which Ingress controller. */
export interface IngressWish {
  /** Name of the `apps` stack. */
  readonly stack: string;
  /** The value of `k3s-lab:ingress`. */
  readonly ingress: string;
}

/**
 * The kubeconfig of a cluster that no stack of the lab made, its context chosen. Makes sure first that the cluster
 * answers and can route requests: without, Pulumi would wait for minutes and then say less. Changes nothing.
 *
 * @throws LabError (exit code 2) that says what is missing and what to do.
 */
export async function foreignKubeconfig(cluster: ForeignCluster, wish: IngressWish): Promise<string> {
  const file = kubeconfigFile(cluster.kubeconfig);
  const text = await readFile(file, "utf8").catch((cause: NodeJS.ErrnoException) => {
    const what = cause.code === "ENOENT" ? "does not exist" : `cannot be read (${cause.code})`;
    throw new LabError(
      `The kubeconfig ${file} ${what}. Set k3s-lab:cluster.kubeconfig to the file that kubectl uses for your cluster, such as ~/.kube/config.`,
      { cause, exitCode: 2 },
    );
  });
  const chosen = selectContext(text, cluster.context);
  refuseIngress(cluster.context, wish, await ingressClassesOf(file, cluster.context));
  return chosen;
}

/** Asks the cluster for its IngressClasses, which also tells whether it answers at all: within 5 s. */
async function ingressClassesOf(file: string, context: string): Promise<readonly IngressClass[]> {
  try {
    const api = connect(await readKubeconfig(file, context));
    try {
      return await api.ingressClasses();
    } finally {
      api.close();
    }
  } catch (cause) {
    throw new LabError(
      `The cluster "${context}" cannot be used: ${(cause as Error).message}. Start the cluster, or set k3s-lab:cluster.context to another; its user must have a client certificate or a token.`,
      { cause, exitCode: 2 },
    );
  }
}

/**
 * Refuses a wish that the cluster cannot meet: an IngressClass that it does not have, or a second controller for one
 * that it has.
 * @throws LabError (exit code 2) that says which IngressClasses there are.
 */
export function refuseIngress(
  context: string,
  { stack, ingress }: IngressWish,
  classes: readonly IngressClass[],
): void {
  // What this stack itself brought goes away when it is no longer asked for.
  const names = classes.filter((one) => !isOwn(one, stack)).map(({ metadata }) => metadata.name);
  const { ingressClass } = managedTraefik;
  if (ingress === managedIngress) {
    if (!names.includes(ingressClass)) return;
    throw new LabError(
      `The cluster "${context}" has an IngressClass "${ingressClass}" already. Set k3s-lab:ingress to ${ingressClass} to use it; ${managedIngress} would bring a second controller for it.`,
      { exitCode: 2 },
    );
  }
  if (names.includes(ingress)) return;
  const [has, choice] = names.length
    ? [`it has: ${names.join(", ")}`, `one of these, or to ${managedIngress}`]
    : ["it has none", managedIngress];
  throw new LabError(
    `The cluster "${context}" has no IngressClass "${ingress}"; ${has}. Set k3s-lab:ingress to ${choice} for the lab's own Traefik.`,
    { exitCode: 2 },
  );
}

const isOwn = ({ metadata: { labels } }: IngressClass, stack: string): boolean =>
  labels["app.kubernetes.io/part-of"] === "k3s-lab" && labels["app.kubernetes.io/instance"] === stack;
