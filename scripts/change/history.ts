import { refusal } from "../../stacks/lib/errors.ts";
import type { KubernetesApi, ReplicaSet } from "../../stacks/lib/kubernetes.ts";
import type { App } from "../../stacks/model/config.ts";
import { renderRows } from "../rows.ts";

/** A revision that an app's Deployment still has. */
export interface Revision {
  readonly revision: number;
  readonly version: string;
  /** When its ReplicaSet was created, in UTC; a rollback gets a new revision number, not a new ReplicaSet. */
  readonly created: string;
  /** Its current pods. */
  readonly pods: number;
}

/** The version that the containers of a pod show. */
export const versionIn = ({ containers }: ReplicaSet["spec"]["template"]["spec"]): string =>
  containers.flatMap(({ env }) => env).find(({ name }) => name === "APP_VERSION")?.value ?? "?";

/** The revisions of an app's Deployment, from its ReplicaSets; the current one comes first. */
export async function historyOf(
  api: KubernetesApi,
  { name, namespace }: Pick<App, "name" | "namespace">,
): Promise<readonly Revision[]> {
  const own = (await api.replicaSets(namespace)).filter(({ metadata }) =>
    metadata.ownerReferences?.some((owner) => owner.kind === "Deployment" && owner.name === name),
  );
  return own
    .map(({ metadata, spec }) => ({
      revision: Number(metadata.annotations["deployment.kubernetes.io/revision"] ?? 0),
      version: versionIn(spec.template.spec),
      created: metadata.creationTimestamp ?? "",
      pods: spec.replicas,
    }))
    .sort((one, other) => other.revision - one.revision);
}

/**
 * The revision to roll back to.
 * @param wanted Default: the newest with a version other than the current one.
 * @param app what the stack file says.
 * @throws LabError (exit code 2) if there is none, or nothing would change.
 */
export function revisionToRestore(
  history: readonly Revision[],
  { name, version }: Pick<App, "name" | "version">,
  wanted?: number,
): Revision {
  const refuse = (message: string): never => {
    throw refusal(`${message}${history.length > 0 ? `\n${tableOf(history)}` : ""}`);
  };
  const [current] = history;
  if (current === undefined)
    return refuse(`${name}: its Deployment has no ReplicaSet: no version has run yet.`);
  const found =
    wanted === undefined
      ? history.find((one) => one !== current && one.version !== version)
      : history.find(({ revision }) => revision === wanted);
  if (found === undefined)
    return refuse(
      wanted === undefined
        ? `${name}: no earlier revision has a version other than ${version}.`
        : `${name}: there is no revision ${wanted}.`,
    );
  if (found.version === version)
    return refuse(
      `${name}: revision ${found.revision} has the same version as the stack file, ${version}: nothing to roll back.`,
    );
  return found;
}

/** The history as lines of a table. */
export function tableOf(history: readonly Revision[]): string {
  const rows = [
    ["REVISION", "VERSION", "CREATED", "PODS"],
    ...history.map(({ revision, version, created, pods }) => [
      String(revision),
      version,
      created.replace("T", " ").replace("Z", " UTC"),
      String(pods),
    ]),
  ];
  return renderRows(rows).replaceAll(/^/gm, "  ");
}
