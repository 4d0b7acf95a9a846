import type { HttpAnswer } from "../../stacks/lib/http.ts";
import { isReady, type Pod } from "../../stacks/lib/kubernetes.ts";
import { askPlace, placeOf } from "../../stacks/observe/place.ts";
import { targetsOf, within } from "../load/targets.ts";
import { renderRows } from "../rows.ts";
import { isAppPod } from "../verify/from-pods.ts";
import { getWithin, parseSelf } from "../verify/ingress.ts";
import type { Seen } from "./change-app.ts";
import type { FoundApp } from "./find-app.ts";
import { versionIn } from "./history.ts";

/** A version's share of an app's pods and requests. */
export interface Share {
  readonly version: string;
  readonly pods: number;
  readonly ready: number;
  /** How many of the sampled requests it answered. */
  readonly requests: number;
}

/** Requests to sample, and how many are concurrent. */
const [requests, atOnce] = [200, 4];
/** Consecutive failures before giving up: each may take ten seconds. */
const patience = 12;
const none = "no answer";

/** Requests an app as clients do, and counts which version answers. @throws LabError if something else answers. */
export const lookAtShares = (found: FoundApp): Promise<Seen> =>
  askPlace(placeOf(found.config), async (api) => {
    const { stack, config, app } = found;
    const [target] = await targetsOf({ stack, config, apps: [app] }, api);
    const send = getWithin(within, target?.authority);
    const versions = target ? await versionsOf(() => send(target.address, target.host, target.path)) : [];
    const pods = (await api.pods(app.namespace)).filter((pod) => isAppPod(pod, [app]));
    const shares = sharesOf(pods, versions);
    return { json: { shares }, text: tableOf(shares) };
  });

/** The version that answered each request. */
export async function versionsOf(send: () => Promise<HttpAnswer>): Promise<readonly string[]> {
  const versions: string[] = [];
  const ask = () =>
    send().then(
      ({ body }) => parseSelf(body)?.version,
      () => undefined,
    );
  const isSilent = () =>
    versions.length >= patience && versions.slice(-patience).every((version) => version === none);
  while (versions.length < requests && !isSilent())
    for (const version of await Promise.all(Array.from({ length: atOnce }, ask)))
      versions.push(version ?? none);
  return versions;
}

/** By version, the oldest answer first. @param answers the version that answered each request. */
export function sharesOf(pods: readonly Pod[], answers: readonly string[]): readonly Share[] {
  const living = pods.filter(({ metadata }) => metadata.deletionTimestamp === undefined);
  const versions = [...new Set([...living.map(({ spec }) => versionIn(spec)), ...answers])].sort();
  return versions.map((version) => {
    const its = living.filter(({ spec }) => versionIn(spec) === version);
    return {
      version,
      pods: its.length,
      ready: its.filter(isReady).length,
      requests: answers.filter((one) => one === version).length,
    };
  });
}

/** The shares as lines of a table. */
export function tableOf(shares: readonly Share[]): string {
  const all = shares.reduce((sum, share) => sum + share.requests, 0);
  return renderRows([
    ["VERSION", "PODS", "READY", "REQUESTS", "SHARE"],
    ...shares.map(({ version, pods, ready, requests }) => [
      version,
      String(pods),
      String(ready),
      `${requests} of ${all}`,
      `${Math.round((requests * 100) / Math.max(1, all))} %`,
    ]),
  ]);
}
