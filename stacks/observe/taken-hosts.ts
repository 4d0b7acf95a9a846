import { ApiError, type Identity, type Ingress, type KubernetesApi } from "../lib/kubernetes.ts";
import { managedIngress, managedTraefik, type OnCluster } from "../model/config.ts";
import { hostsOf } from "../model/routes.ts";

/** An Ingress that routes one of the stack's hosts elsewhere. */
export interface TakenHost {
  readonly host: string | undefined;
  /** As `namespace/name`. */
  readonly ingress: string;
  readonly labels: Identity["labels"];
}

/**
 * The stack file's hosts that another Ingress of the same class has: the controller would route their requests to either.
 * Hosts that the stack has already are not asked about again.
 * @param isOurs whether an Ingress is the stack's.
 */
export async function takenHosts(
  api: Pick<KubernetesApi, "ingresses">,
  { apps, ingress }: Pick<OnCluster, "apps" | "ingress">,
  isOurs: (identity: Identity) => boolean,
): Promise<TakenHost[]> {
  const ingressClass = ingress === managedIngress ? managedTraefik.ingressClass : ingress;
  const all = (await everyIngress(api)).filter((one) => (classOf(one) ?? ingressClass) === ingressClass);
  const hosts = (ours: boolean) =>
    all
      .filter(({ metadata }) => isOurs(metadata) === ours)
      .flatMap(({ metadata, spec: { rules } }) => rules.map(({ host }) => ({ metadata, host })));
  const own = new Set(hosts(true).map(({ host }) => host));
  const wanted = new Set(apps.flatMap(hostsOf).filter((host) => !own.has(host)));
  return hosts(false)
    .filter(({ host }) => wanted.has(host))
    .map(({ host, metadata: { namespace, name, labels } }) => ({
      host,
      ingress: `${namespace}/${name}`,
      labels,
    }));
}

/** Ingresses of all namespaces; none if this user may not list them. */
const everyIngress = (api: Pick<KubernetesApi, "ingresses">): Promise<Ingress[]> =>
  api.ingresses().catch((cause) => {
    if (cause instanceof ApiError && cause.status === 403) return [];
    throw cause;
  });

const classOf = ({ metadata, spec }: Ingress): string | undefined =>
  spec.ingressClassName ?? metadata.annotations["kubernetes.io/ingress.class"];
