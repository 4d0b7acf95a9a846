import type * as pulumi from "@pulumi/pulumi";
import { LabError, refusal } from "../lib/errors.ts";
import { ApiError, type Identity, type KubernetesApi } from "../lib/kubernetes.ts";
import { serviceNames, staticVolumeOf } from "../model/concepts.ts";
import {
  type ConceptsConfig,
  managedIngress,
  managedTraefik,
  type OnCluster,
  priorityClassName,
  rbacGroup,
  tlsSecretOf,
} from "../model/config.ts";
import { hardLimits } from "../model/quota.ts";
import { autoscaledMark } from "../model/replicas.ts";
import { routesOf } from "../model/routes.ts";
import { forcedMark, type HeldObject, type OwnState } from "./own-state.ts";
import { type TakenHost, takenHosts } from "./taken-hosts.ts";
import { refuseUnmet } from "./unmet.ts";

/** The owner of an object: a checkout's lab, and a stack of it. */
export interface Owner {
  readonly lab: string;
  readonly stack: string;
}

/** The labels on every object of a stack. An object is this stack's only if both match exactly. */
export const labelsOf = ({ lab, stack }: Owner) => ({ "k3s-lab/lab": lab, "k3s-lab/stack": stack }) as const;

/**
 * Labels a component's objects with this stack's values, so that the API server rejects the second of two stacks that apply
 * one object at the same moment. The whole stack uses one field manager: with Pulumi's random ones, an object whose creation
 * was interrupted would conflict with itself. Objects with fixed names are deleted before they are replaced: otherwise a
 * cluster that is known by two identities would lose the new one.
 */
export const labelling =
  (owner: Owner, { managers, stopped, autoscaled }: OwnState): pulumi.ResourceTransformation =>
  ({ type, name, props, opts }) => {
    if (!type.startsWith("kubernetes:")) return undefined;
    const { labels, annotations, ...rest } = props.metadata ?? {};
    const manager = `k3s-lab/${owner.lab}/${owner.stack}`;
    // An object that was applied by another manager keeps it.
    const isOurs = (managers.get(`${type} ${name}`) ?? manager) === manager;
    const key = `${type} ${name}`;
    // The removed autoscaler set the number last, and the API server would reject another one as a conflict.
    const isTakenBack = autoscaled.has(key) && annotations?.[autoscaledMark] === undefined;
    const metadata = {
      ...rest,
      labels: { ...labels, ...labelsOf(owner) },
      annotations: {
        ...annotations,
        ...(isOurs && { "pulumi.com/patchFieldManager": manager }),
        ...(isTakenBack && { [forcedMark]: "true" }),
      },
    };
    return {
      props: { ...props, metadata },
      opts: { deleteBeforeReplace: true, ...opts, ...(stopped.has(key) && startsAgain(opts)) },
    };
  };

/** An autoscaler ignores a Deployment with zero replicas: for Kubernetes that disables autoscaling. */
const startsAgain = ({ ignoreChanges = [] }: pulumi.CustomResourceOptions) => ({
  ignoreChanges: ignoreChanges.filter((path) => path !== "spec.replicas"),
});

/** An object's place in a cluster. */
export type ObjectPlace = Pick<HeldObject, "apiVersion" | "kind" | "namespace" | "name">;

/** Everything that the apps program creates on a cluster. A test compares it with what the program really creates. */
export function objectsOf(config: OnCluster): ObjectPlace[] {
  const { apps, namespaces, ingress } = config;
  const place = (apiVersion: string, kind: string) => (name: string, namespace?: string) => ({
    apiVersion,
    kind,
    name,
    namespace,
  });
  const namespace = place("v1", "Namespace");
  const service = place("v1", "Service");
  const deployment = place("apps/v1", "Deployment");
  const { namespace: home, ingressClass, role } = managedTraefik;
  const rbac = `${rbacGroup}/v1`;
  return [
    ...namespaces.flatMap(({ name, quota, isolated }) => [
      namespace(name),
      ...(Object.keys(hardLimits(quota ?? {})).length > 0
        ? [place("v1", "ResourceQuota")(name, name), place("v1", "LimitRange")(name, name)]
        : []),
      ...(isolated ? [place("networking.k8s.io/v1", "NetworkPolicy")(name, name)] : []),
    ]),
    ...(ingress === managedIngress
      ? [
          namespace(home),
          place("v1", "ServiceAccount")("traefik", home),
          place(rbac, "ClusterRole")(role),
          place(rbac, "ClusterRoleBinding")(role),
          place("networking.k8s.io/v1", "IngressClass")(ingressClass),
          service("traefik", home),
          deployment("traefik", home),
        ]
      : []),
    ...apps.flatMap(({ name, namespace: where, paths, tls, canary, autoscaling }) => [
      ...(tls ? [place("v1", "Secret")(tlsSecretOf({ name }), where)] : []),
      deployment(name, where),
      ...(canary ? [deployment(`${name}-canary`, where)] : []),
      service(name, where),
      ...routesOf({ paths }).map(({ suffix }) =>
        place("networking.k8s.io/v1", "Ingress")(`${name}${suffix}`, where),
      ),
      place("policy/v1", "PodDisruptionBudget")(name, where),
      ...(autoscaling ? [place("autoscaling/v2", "HorizontalPodAutoscaler")(name, where)] : []),
    ]),
    ...("database" in config ? databaseObjects(config.namespace) : []),
    ...("services" in config ? exampleObjects(config) : []),
  ];
}

/** The objects of the guest book's database and its backups. */
const databaseObjects = (namespace: string): ObjectPlace[] => [
  {
    ...{ apiVersion: "scheduling.k8s.io/v1", kind: "PriorityClass" },
    name: priorityClassName("db", namespace),
    namespace: undefined,
  },
  ...[
    { apiVersion: "v1", kind: "Secret", name: "db" },
    ...["db", "db-read", "db-pods"].map((name) => ({ apiVersion: "v1", kind: "Service", name })),
    { apiVersion: "v1", kind: "ConfigMap", name: "db-made" },
    { apiVersion: "apps/v1", kind: "StatefulSet", name: "db" },
    { apiVersion: "policy/v1", kind: "PodDisruptionBudget", name: "db" },
    { apiVersion: "v1", kind: "PersistentVolumeClaim", name: "db-backup" },
    { apiVersion: "batch/v1", kind: "CronJob", name: "db-backup" },
  ].map((one) => ({ ...one, namespace })),
];

/** The volumes and Services of the stack `concepts`. */
const exampleObjects = ({ namespace, services }: ConceptsConfig): ObjectPlace[] => {
  const { loadBalancer, ...others } = serviceNames;
  const names = [
    ...Object.values(others),
    ...(services.loadBalancerPort === undefined ? [] : [loadBalancer]),
  ];
  return [
    { apiVersion: "v1", kind: "PersistentVolume", name: staticVolumeOf(namespace) },
    ...["static", "dynamic"].map((name) => ({ kind: "PersistentVolumeClaim", name })),
    ...names.map((name) => ({ kind: "Service", name })),
  ].map((one) => ({ apiVersion: "v1", ...("apiVersion" in one ? {} : { namespace }), ...one }));
};

/** An object's kind as RBAC names it, and its namespace. */
export function kindOf({ apiVersion, kind, namespace }: Omit<ObjectPlace, "name">) {
  const lower = kind.toLowerCase();
  const resource = lower.endsWith("s")
    ? `${lower}es`
    : lower.endsWith("y")
      ? `${lower.slice(0, -1)}ies`
      : `${lower}s`;
  return { group: apiVersion === "v1" ? "" : apiVersion.replace(/\/.*/, ""), resource, namespace };
}

export function pathOf({ name, ...place }: ObjectPlace): string {
  const { apiVersion, namespace } = place;
  const api = apiVersion === "v1" ? "/api/v1" : `/apis/${apiVersion}`;
  return `${api}${namespace === undefined ? "" : `/namespaces/${namespace}`}/${kindOf(place).resource}/${name}`;
}

const inWords = ({ kind, namespace, name }: ObjectPlace): string =>
  `${kind} ${namespace === undefined ? name : `${namespace}/${name}`}`;

/**
 * Whether an object is this stack's: by its labels, or because the state holds its UID and nobody has labelled it otherwise
 * since.
 */
export const isOwn = ({ uid, labels }: Identity, owner: Owner, state: Pick<OwnState, "objects">): boolean =>
  Object.entries(labelsOf(owner)).every(([key, value]) => labels[key] === value) ||
  state.objects.some((held) => held.uid === uid && held.lab === labels["k3s-lab/lab"]);

/**
 * Checks a cluster before anything is created there: its identity, and conflicting objects that are not this stack's. The
 * Kubernetes provider would take them over (its create is an upsert up to 4.28: pulumi-kubernetes#4278).
 * @param where the cluster's name in messages.
 * @returns the identity of the cluster for `clusterIdentifier`.
 * @throws LabError (exit code 2) that names what is in the way and its owner; exit code 1 if the cluster does not answer.
 */
export async function inspectCluster(
  api: KubernetesApi,
  where: string,
  config: OnCluster,
  owner: Owner,
  state: OwnState,
): Promise<string> {
  const wanted = objectsOf(config);
  const own = new Set(config.namespaces.map(({ name }) => name));
  const existing = [...new Set(config.apps.map(({ namespace }) => namespace))].filter(
    (name) => !own.has(name),
  );
  const [system, found, held, homes] = await Promise.all([
    api.object(kubeSystem),
    Promise.all(wanted.map(async (place) => [place, await api.object(pathOf(place))] as const)),
    heldBy(api, state),
    Promise.all(
      existing.map(async (name) => [name, await api.object(`/api/v1/namespaces/${name}`)] as const),
    ),
  ]);
  if (system === undefined)
    throw new LabError(
      `${where} has no namespace kube-system, whose UID identifies a cluster. Does the kubeconfig lead to a Kubernetes cluster?`,
    );
  const holdsSome = held.some(({ uid, identity }) => identity?.uid === uid);
  // Pulumi deletes by name: an object that somebody recreated since would be deleted when it leaves the program.
  const paths = new Set(wanted.map(pathOf));
  const leaving = holdsSome ? held.filter(({ place }) => !paths.has(pathOf(place))) : [];
  const taken = [...found.map(([place, identity]) => ({ place, identity })), ...leaving].flatMap(
    ({ place, identity }) =>
      identity === undefined || isOwn(identity, owner, state) ? [] : { place, identity },
  );
  if (taken.length > 0) throw inTheWay(where, taken, owner);
  const missing = homes.filter(([, identity]) => identity === undefined).map(([name]) => name);
  if (missing.length > 0)
    throw refusal(
      `${where} has no namespace ${missing.map((name) => `"${name}"`).join(", ")} for the apps. Add it to k3s-lab:namespaces, or create it: \`kubectl create namespace ${missing[0]}\`.`,
    );
  const isOurs = (identity: Identity) => isOwn(identity, owner, state);
  await refuseUnmet(api, where, config, owner.stack, isOurs);
  const [other] = await takenHosts(api, config, isOurs);
  if (other) throw hostTaken(where, other, owner);
  return system.uid;
}

const heldBy = (api: KubernetesApi, { objects }: OwnState) =>
  Promise.all(
    objects.map(async ({ uid, apiVersion, kind, namespace, name }) => {
      const place: ObjectPlace = { apiVersion, kind, namespace, name };
      return { place, uid, identity: await api.object(pathOf(place)) };
    }),
  );

/** The object that identifies every cluster. */
export const kubeSystem = "/api/v1/namespaces/kube-system";

/** Objects that Kubernetes itself keeps beside others; its remaining objects have an owner. */
const kept = new Set(["Event", "Endpoints", "EndpointSlice"]);

/** The default objects of every namespace. */
const fromTheStart = /^(ConfigMap kube-root-ca\.crt|ServiceAccount default|Secret default-token-\w+)$/;

/**
 * Objects of others that would be deleted with this stack, such as `ConfigMap dev/notes`: in the namespaces that it created,
 * or in place of an object that it created.
 * @throws Error if the cluster does not answer.
 */
export async function othersIn(api: KubernetesApi, owner: Owner, state: OwnState): Promise<string[]> {
  const namespaces = state.objects.filter(({ kind }) => kind === "Namespace").map(({ name }) => name);
  const kinds = namespaces.length > 0 ? await api.namespacedKinds() : [];
  const answers = await Promise.all(
    namespaces.flatMap((namespace) => kinds.map((kind) => listIn(api, namespace, kind))),
  );
  const listed = answers.flat();
  // Labels are copied with an object: our labels count only in place of an object that the stack created or was creating.
  const places = new Set([...state.objects, ...state.pending].map(inWords));
  const isOurs = ({ words, identity }: Listed) =>
    identity !== undefined &&
    isOwn(identity, owner, state) &&
    (places.has(words) || state.objects.some(({ uid }) => uid === identity.uid));
  const ours = new Map(listed.map((one) => [one.identity?.uid, isOurs(one)]));
  // Objects with an owner are deleted with it; an owner of somebody else's is reported itself.
  const isMade = ({ identity }: Listed) =>
    identity?.ownerReferences.some(
      ({ uid, controller }) => ours.get(uid) === false || (ours.get(uid) === true && controller),
    ) === true;
  const found = listed.filter((one) => !isOurs(one) && !isMade(one)).map(({ words }) => words);
  const remade = (await heldBy(api, state)).filter(
    ({ identity }) => identity && !isOwn(identity, owner, state),
  );
  return [...remade.map(({ place }) => inWords(place)), ...found];
}

/** The content of a namespace; without an identity if it may not be read. */
interface Listed {
  readonly words: string;
  readonly identity?: Awaited<ReturnType<KubernetesApi["identities"]>>[number];
}

async function listIn(
  api: KubernetesApi,
  namespace: string,
  { kind, folder }: Awaited<ReturnType<KubernetesApi["namespacedKinds"]>>[number],
): Promise<Listed[]> {
  if (kept.has(kind)) return [];
  const all = await api.identities(folder(namespace)).catch((cause) => {
    if (!(cause instanceof ApiError)) throw cause;
    // A kind that was removed meanwhile.
    if (cause.status === 404) return [];
    if (cause.status !== 403) throw cause;
    return undefined;
  });
  if (all === undefined) return [{ words: `any ${kind} in ${namespace} (403: this user may not list them)` }];
  return all
    .filter(({ name }) => !fromTheStart.test(`${kind} ${name}`))
    .map((identity) => ({ words: `${kind} ${namespace}/${identity.name}`, identity }));
}

function inTheWay(
  where: string,
  taken: readonly { readonly place: ObjectPlace; readonly identity: Identity }[],
  owner: Owner,
): LabError {
  const [first] = taken;
  const labels = first?.identity.labels ?? {};
  const isLabs = labels["k3s-lab/lab"] !== undefined;
  const shown = taken.slice(0, 5).map(({ place }) => inWords(place));
  const more = taken.length > shown.length ? ` and ${taken.length - shown.length} more` : "";
  return refusal(
    `${where} already has ${shown.join(", ")}${more}, ${whose(labels, owner)}. Nothing was touched. Rename the namespaces or apps in Pulumi.${owner.stack}.yaml, or ${isLabs ? "take the other stack down first" : "delete what is in the way"}.`,
  );
}

function hostTaken(where: string, { host, ingress, labels }: TakenHost, owner: Owner): LabError {
  const requests = host === undefined ? "requests for all hosts that no other has" : `requests for ${host}`;
  const stack = labels["k3s-lab/stack"];
  const isHere = stack !== undefined && labels["k3s-lab/lab"] === owner.lab;
  return refusal(
    `${where} has the Ingress ${ingress}, ${whose(labels, owner)}, and it routes ${requests} elsewhere. Nothing was touched. Choose another host in Pulumi.${owner.stack}.yaml, or ${isHere ? `run \`scripts/lab up ${stack}\` first, if its file now has another host` : "delete that Ingress first"}.`,
  );
}

function whose(labels: Identity["labels"], owner: Owner): string {
  const [lab, stack] = [labels["k3s-lab/lab"], labels["k3s-lab/stack"]];
  if (lab === undefined) return "which the lab did not create";
  return `of the stack ${stack}${lab === owner.lab ? "" : " of another checkout"}`;
}
