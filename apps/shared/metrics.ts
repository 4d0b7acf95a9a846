/** Upper bounds of the request duration's buckets, in seconds. */
const buckets = [0.005, 0.025, 0.1, 0.5, 2.5, 10] as const;

/** Counts requests, in the text format of Prometheus. */
export class Metrics {
  readonly #byCode = new Map<string, number>();
  readonly #counts = buckets.map(() => 0);
  #seconds = 0;
  #requests = 0;

  /** Counts a request that was answered, or whose connection was lost. */
  count(method: string, status: number, seconds: number): void {
    // A client can invent any number of methods.
    const known = ["GET", "HEAD", "POST", "DELETE"].includes(method) ? method : "other";
    const key = `method="${known}",code="${status}"`;
    this.#byCode.set(key, (this.#byCode.get(key) ?? 0) + 1);
    this.#seconds += seconds;
    this.#requests += 1;
    for (const [index, bound] of buckets.entries())
      if (seconds <= bound) this.#counts[index] = (this.#counts[index] ?? 0) + 1;
  }

  /** @param open requests in progress. */
  render(open: number): string {
    const name = "http_request_duration_seconds";
    return [
      "# HELP http_requests_total Requests that were answered; probes are not counted.",
      "# TYPE http_requests_total counter",
      ...[...this.#byCode].sort().map(([labels, count]) => `http_requests_total{${labels}} ${count}`),
      "# HELP http_requests_in_flight Requests that are being answered.",
      "# TYPE http_requests_in_flight gauge",
      `http_requests_in_flight ${open}`,
      `# HELP ${name} How long answers took.`,
      `# TYPE ${name} histogram`,
      ...buckets.map((bound, index) => `${name}_bucket{le="${bound}"} ${this.#counts[index]}`),
      `${name}_bucket{le="+Inf"} ${this.#requests}`,
      `${name}_sum ${this.#seconds}`,
      `${name}_count ${this.#requests}`,
      "# HELP process_resident_memory_bytes Memory in use.",
      "# TYPE process_resident_memory_bytes gauge",
      `process_resident_memory_bytes ${process.memoryUsage.rss()}`,
      "",
    ].join("\n");
  }
}
