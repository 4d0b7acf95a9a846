/** Latency percentiles in milliseconds. */
export interface Latency {
  readonly p50: number;
  readonly p95: number;
  readonly p99: number;
  readonly max: number;
}

/** The results of requests so far. */
export interface Figures {
  readonly requests: number;
  readonly failed: number;
  readonly perSecond: number;
  /** Undefined if none was answered. */
  readonly latency: Latency | undefined;
}

/** Milliseconds that count as recent. */
const recentMs = 5000;

/** Counts finished requests. @param now milliseconds; tests pass their own clock. */
export class Statistics {
  readonly #now: () => number;
  readonly #began: number;
  readonly #all: number[] = [];
  #failed = 0;
  #recent: { readonly at: number; readonly ms: number; readonly isAnswered: boolean }[] = [];

  constructor(now: () => number = () => performance.now()) {
    this.#now = now;
    this.#began = now();
  }

  readonly note = (ms: number, isAnswered: boolean): void => {
    if (isAnswered) this.#all.push(ms);
    else this.#failed += 1;
    this.#recent.push({ at: this.#now(), ms, isAnswered });
  };

  /** Of the last seconds. */
  recent(): Figures {
    const now = this.#now();
    this.#recent = this.#recent.filter(({ at }) => now - at < recentMs);
    const answered = this.#recent.flatMap(({ ms, isAnswered }) => (isAnswered ? [ms] : []));
    const failed = this.#recent.length - answered.length;
    return figures(answered, failed, Math.min(recentMs, now - this.#began));
  }

  /** Of all of them. @param ms how long the load took. */
  whole(ms: number = this.#now() - this.#began): Figures {
    return figures(this.#all, this.#failed, ms);
  }
}

function figures(answered: readonly number[], failed: number, ms: number): Figures {
  const requests = answered.length + failed;
  const sorted = Float64Array.from(answered).sort();
  const at = (percent: number) => tenths(sorted[Math.ceil((sorted.length * percent) / 100) - 1] ?? 0);
  const latency = sorted.length > 0 ? { p50: at(50), p95: at(95), p99: at(99), max: at(100) } : undefined;
  return { requests, failed, perSecond: tenths((requests * 1000) / Math.max(ms, 1)), latency };
}

const tenths = (value: number): number => Math.round(value * 10) / 10;
