import { setTimeout as pause } from "node:timers/promises";
import type { App } from "../../stacks/model/config.ts";
import type { AppPods } from "./pods.ts";
import { type LoadResult, startRequests, type Target } from "./requests.ts";
import { type Figures, Statistics } from "./statistics.ts";

/** How much is asked. */
export interface LoadSize {
  /** Seconds. */
  readonly duration: number;
  /** Requests a second, at most. */
  readonly rate: number;
  /** Requests under way at once, at most. */
  readonly concurrency: number;
}

/** The state of a load at one moment. */
export interface Moment {
  /** Since it began. */
  readonly seconds: number;
  /** Whether requests are being sent; then the figures cover the last seconds. */
  readonly isOn: boolean;
  readonly figures: Figures;
  readonly pods: readonly AppPods[];
}

/** The settings and results of a load. */
export interface Outcome extends Figures, Pick<LoadResult, "reasons" | "repeated" | "seconds"> {
  readonly apps: readonly AppOutcome[];
}

/** What happened to an app during a load. */
interface AppOutcome {
  readonly app: string;
  readonly namespace: string;
  readonly replicas: Readonly<Record<"before" | "most" | "after", number>>;
  /** In percent of the pods' requests; only for an autoscaled app. */
  readonly cpu?: { readonly target: number; readonly most: number | null };
}

/** What a load is made of. */
export interface LoadParts extends LoadSize {
  readonly targets: readonly Target[];
  /** Milliseconds for one answer. */
  readonly timeout: number;
  /** The apps whose pods are watched. */
  readonly apps: readonly App[];
  readonly look: () => Promise<readonly AppPods[]>;
  /** Receives the progress every second. */
  readonly tell: (moment: Moment) => void;
  /** Ends it early but gracefully. */
  readonly signal: AbortSignal;
  /** Milliseconds between polls. Default: 1000. */
  readonly interval?: number;
}

/** Seconds to wait for added pods to be removed again. */
const settlesWithin = 180;

/** Sends requests and watches the pods, afterwards until autoscalers have scaled down again. */
export async function runLoad(parts: LoadParts): Promise<Outcome> {
  const { apps, tell, signal, interval = 1000 } = parts;
  const began = performance.now();
  const seen = new Seen(apps, await parts.look());
  const statistics = new Statistics();
  const load = startRequests({ ...parts, keepAlive: true, onDone: statistics.note });
  let result: LoadResult | undefined;

  let looking: Promise<void> | undefined;
  const until = async (end: AbortSignal, isOver = () => false) => {
    while (!end.aborted && !isOver()) {
      await pause(interval, undefined, { signal: end }).catch(() => {});
      // While the API server does not answer, show the last state.
      looking ??= parts
        .look()
        .then(seen.note, () => {})
        .finally(() => {
          looking = undefined;
        });
      await Promise.race([looking, pause(interval, undefined, { signal: end, ref: false })]).catch(() => {});
      const isOn = result === undefined;
      const seconds = (performance.now() - began) / 1000;
      const figures = isOn ? statistics.recent() : statistics.whole((result?.seconds ?? 0) * 1000);
      tell({ seconds, isOn, figures, pods: seen.pods });
    }
  };
  const within = (time: number) => AbortSignal.any([signal, AbortSignal.timeout(time * 1000)]);
  try {
    await until(within(parts.duration));
  } finally {
    result = await load.stop();
  }
  await until(within(settlesWithin), () => seen.isSettled());
  const { reasons, repeated, seconds } = result;
  return { ...statistics.whole(seconds * 1000), reasons, repeated, seconds, apps: seen.outcomes() };
}

/** The observations of the pods. */
class Seen {
  readonly #apps: readonly App[];
  readonly #before: readonly AppPods[];
  readonly #most: { wanted: number; cpu: number | null }[];
  pods: readonly AppPods[];

  constructor(apps: readonly App[], before: readonly AppPods[]) {
    this.#apps = apps;
    this.#before = before;
    this.#most = before.map(({ wanted }) => ({ wanted, cpu: null }));
    this.pods = before;
    this.note(before);
  }

  readonly note = (pods: readonly AppPods[]): void => {
    this.pods = pods;
    for (const [index, { wanted, cpu }] of pods.entries()) {
      const most = this.#most[index];
      if (most === undefined) continue;
      most.wanted = Math.max(most.wanted, wanted);
      if (cpu !== undefined) most.cpu = Math.max(most.cpu ?? 0, cpu);
    }
  };

  /** Whether every autoscaler is at its minimum. */
  isSettled(): boolean {
    return this.pods.every(({ wanted, ready }, index) => {
      const autoscaling = this.#apps[index]?.autoscaling;
      return autoscaling === undefined || (wanted <= autoscaling.min && ready >= wanted);
    });
  }

  outcomes(): readonly AppOutcome[] {
    return this.pods.map(({ app, namespace, wanted }, index) => {
      const most = this.#most[index];
      const target = this.#apps[index]?.autoscaling?.cpu;
      const before = this.#before[index]?.wanted ?? wanted;
      return {
        ...{ app, namespace, replicas: { before, most: most?.wanted ?? wanted, after: wanted } },
        ...(target === undefined ? {} : { cpu: { target, most: most?.cpu ?? null } }),
      };
    });
  }
}
