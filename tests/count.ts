/** What Node's runner counts in a run. */
export interface Counts {
  readonly tests: number;
  readonly passed: number;
  readonly skipped: number;
  /** Those that were given up on: a run that was stopped, a test beyond its time. */
  readonly cancelled: number;
  readonly failed: number;
  /** Files whose results arrived to their end. */
  readonly files: number;
}

interface Event {
  readonly type: string;
  readonly data: { readonly file?: string; readonly counts?: Omit<Counts, "files"> };
}

/** A reporter for Node's runner: what a run counted, as JSON. */
export default async function* count(events: AsyncIterable<Event>): AsyncGenerator<string> {
  let files = 0;
  for await (const { type, data } of events) {
    if (type !== "test:summary") continue;
    if (data.file === undefined) yield JSON.stringify({ ...data.counts, files });
    else files += 1;
  }
}
