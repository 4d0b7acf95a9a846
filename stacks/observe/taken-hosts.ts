import { ApiError, type Identity, type Ingress, type KubernetesApi } from "../lib/kubernetes.ts";
import { managedIngress, managedTraefik, type OnCluster } from "../model/config.ts";
import { hostsOf } from "../model/routes.ts";

/** An Ingress that leads requests for a host of the stack's somewhere else. */
export interface TakenHost {
  readonly host: string | undefined;
  /** As `namespace/name`. */
  readonly ingress: string;
  readonly labels: Identity["labels"];
}

/**
 * The hosts that a stack's file asks for and that somebody's Ingress of the same class has: the controller would send
 * requests for them here or there. What the stack has already is not asked about again.
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

/** Those of all namespaces; none where this user may not see them. */
const everyIngress = (api: Pick<KubernetesApi, "ingresses">): Promise<Ingress[]> =>
  api.ingresses().catch((cause) => {
    if (cause instanceof ApiError && cause.status === 403) return [];
    throw cause;
  });

const classOf = ({ metadata, spec }: Ingress): string | undefined =>
  spec.ingressClassName ?? metadata.annotations["kubernetes.io/ingress.class"];
