import { setTimeout as pause } from "node:timers/promises";
import { isReady, type Pod, podState } from "../../stacks/lib/kubernetes.ts";
import type { Progress } from "../../stacks/lib/progress.ts";
import type { App, OnCluster } from "../../stacks/model/config.ts";
import { askPlace, placeOf } from "../../stacks/observe/place.ts";
import { isAppPod, namespacesOf } from "../verify/from-pods.ts";
import { versionIn } from "./history.ts";

/** Reads the pods that are watched. */
type Look = () => Promise<readonly Pod[]>;

/**
 * Reports each change of pods: new ones, state changes, removed ones. Silent while the API server does not answer.
 * @param interval milliseconds between polls. Default: 500.
 * @returns a function that polls once more and stops.
 */
export function watchPods(look: Look, tell: Progress, interval = 500): () => Promise<void> {
  const ended = new AbortController();
  let told: ReadonlyMap<string, string> = new Map();
  const round = async () => {
    const pods = await look().catch(() => undefined);
    if (pods === undefined) return;
    const now = new Map(pods.map((pod) => [pod.metadata.name, describePod(pod)]));
    for (const [name, words] of now) if (told.get(name) !== words) tell(`${name} ${words}`);
    for (const name of told.keys()) if (!now.has(name)) tell(`${name} gone`);
    told = now;
  };
  const loop = async () => {
    while (!ended.signal.aborted) {
      await round();
      await pause(interval, undefined, { signal: ended.signal }).catch(() => {});
    }
    await round();
  };
  const running = loop();
  return () => {
    ended.abort();
    return running;
  };
}

const describePod = (pod: Pod): string => {
  const { nodeName } = pod.spec;
  return `(${versionIn(pod.spec)})${nodeName ? ` on ${nodeName}` : ""}: ${isReady(pod) ? "ready" : podState(pod)}`;
};

/** Reads the apps' pods at each call. */
export const podsOf =
  (config: OnCluster, apps: readonly App[]): Look =>
  () =>
    askPlace(placeOf(config), async (api) => {
      const all = await Promise.all(namespacesOf(apps).map((namespace) => api.pods(namespace)));
      return all.flat().filter((pod) => isAppPod(pod, apps));
    });
