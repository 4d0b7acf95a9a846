import { refusal } from "../lib/errors.ts";
import { type Act, ApiError, type KubernetesApi } from "../lib/kubernetes.ts";
import { managedTraefik, type OnCluster, rbacGroup, stackFile } from "../model/config.ts";
import type { OwnState } from "./own-state.ts";
import { kindOf, type ObjectPlace, objectsOf, pathOf } from "./ownership.ts";

/**
 * What Pulumi's run does with a stack's objects: it applies them, which creates those that are missing, and deletes those that
 * leave. In a namespace that does not exist yet nothing is known: its permissions may be created with it.
 */
async function actsIn(
  api: KubernetesApi,
  config: OnCluster,
  { objects }: Pick<OwnState, "objects">,
): Promise<Act[]> {
  const wanted = objectsOf(config);
  const paths = new Set(wanted.map(pathOf));
  const leaving = objects.filter((held) => !paths.has(pathOf(held)));
  const find = async (place: ObjectPlace) => {
    const { namespace } = place;
    if (namespace !== undefined && (await api.object(`/api/v1/namespaces/${namespace}`)) === undefined)
      return "nowhere" as const;
    return await api.object(pathOf(place)).catch((cause) => {
      if (cause instanceof ApiError && cause.status === 403) return "unreadable" as const;
      throw cause;
    });
  };
  const act = (place: ObjectPlace, verbs: readonly string[]): Act[] =>
    verbs.map((verb) => ({ verb, ...kindOf(place), name: place.name }));
  const applied = wanted.map(async (place) => {
    const found = await find(place);
    if (found === "nowhere") return [];
    return act(place, ["get", ...(found === "unreadable" ? [] : found ? ["patch"] : ["create", "patch"])]);
  });
  const deleted = leaving.map(async (held) => {
    const found = await find(held);
    return typeof found === "object" && found.uid === held.uid ? act(held, ["delete"]) : [];
  });
  return (await Promise.all([...applied, ...deleted])).flat();
}

/** An act on all objects of a kind, as a user would call it. */
const inWords = ({ verb, group, resource, subresource, namespace }: Act): string =>
  `${verb} ${resource}${subresource ? `/${subresource}` : ""}${group && `.${group}`}${namespace === undefined ? "" : ` in ${namespace}`}`;

/** What the API server denies. Permissions may be limited to names. */
async function deniedOf(api: KubernetesApi, acts: readonly Act[]): Promise<string[]> {
  const kinds = Map.groupBy(acts, inWords);
  const isDenied = async (act: Act) => (await api.may(act)) === false;
  const denied = [...kinds].map(async ([words, [first, ...others]]) => {
    if (first === undefined || !(await isDenied({ ...first, name: undefined }))) return [];
    return (await Promise.all([first, ...others].map(isDenied))).some(Boolean) ? [words] : [];
  });
  return (await Promise.all(denied)).flat();
}

/**
 * Nobody may grant permissions that they lack, unless they may `escalate` a role and `bind` it:
 * https://kubernetes.io/docs/reference/access-authn-authz/rbac/#privilege-escalation-prevention-and-bootstrapping
 */
async function withheldFromTraefik(api: KubernetesApi, acts: readonly Act[]): Promise<string[]> {
  const roles = { group: rbacGroup, resource: "clusterroles", name: managedTraefik.role };
  const isCreated = (kind: string) =>
    acts.some(({ verb, resource }) => verb === "create" && resource === kind);
  const ways = [
    ...(isCreated("clusterroles") ? [{ verb: "escalate", ...roles }] : []),
    ...(isCreated("clusterrolebindings") ? [{ verb: "bind", ...roles }] : []),
  ];
  const closed = await deniedOf(api, ways);
  if (closed.length === 0) return [];
  const given = managedTraefik.rules.flatMap(({ apiGroups, resources, verbs }) =>
    apiGroups.flatMap((group) =>
      resources.flatMap((one) => {
        const [resource = "", subresource] = one.split("/");
        return verbs.map((verb) => ({ verb, group, resource, subresource }));
      }),
    ),
  );
  const lacking = await deniedOf(api, given);
  if (lacking.length === 0) return [];
  return [
    `${closed.join(", ")}, so as to give the lab's own Traefik what this user lacks (${lacking.join(", ")})`,
  ];
}

/**
 * Refuses a user who lacks a permission that this run needs: the first object that the API server refuses would end a run that
 * has created others.
 * @param where the cluster's name in messages.
 * @throws LabError (exit code 2) that lists the permissions.
 */
export async function refuseForbidden(
  api: KubernetesApi,
  where: string,
  config: OnCluster,
  stack: string,
  state: Pick<OwnState, "objects">,
): Promise<void> {
  const acts = await actsIn(api, config, state);
  const words = [...(await deniedOf(api, acts)), ...(await withheldFromTraefik(api, acts))];
  if (words.length > 0)
    throw refusal(
      `${where} cannot run the stack ${stack}: its user may not ${words.join(", ")}. Nothing was touched. Ask for these permissions, or give the context of ${stackFile(stack)} a user who has them.`,
    );
}
