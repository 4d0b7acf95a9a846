import { Agent, request } from "node:http";

/** What a load asks for, and how. */
export interface LoadOptions {
  /** Where an Ingress controller or a server listens, such as `192.168.42.110` or `127.0.0.1:8888`; asked in turn. */
  readonly addresses: readonly string[];
  /** Host headers, asked in turn. Default: the address. */
  readonly hosts?: readonly string[];
  /** Default: `/`. */
  readonly path?: string;
  /** Whether connections are used again. Default: false, one for each request. */
  readonly keepAlive?: boolean;
  /** Requests under way at once. Default: 8. */
  readonly concurrency?: number;
  /** Requests a second, at most. Default: 300. */
  readonly rate?: number;
  /** Milliseconds for one answer, after which the request counts as lost. Default: 5000. */
  readonly timeout?: number;
  /** Called for a request without an answer after 1.5 s, with the address and this computer's port of its connection. */
  readonly onSlow?: ((address: string, port: number) => void) | undefined;
}

/** What came of a load. */
export interface LoadResult {
  readonly total: number;
  readonly lost: number;
  /**
   * Requests that were sent again because the server had closed the idle connection that they were sent on. Browsers and
   * HTTP libraries do so by themselves (RFC 9110, 9.2.2): nothing was answered, and a GET may be repeated.
   */
  readonly repeated: number;
  /** How many were lost for which reason. */
  readonly reasons: Readonly<Record<string, number>>;
  /** When those were sent, in seconds since the start: for each reason the first {@link mostTimes}, in order. */
  readonly lostAt: Readonly<Record<string, readonly number[]>>;
  /** The longest that an answer took, in milliseconds. */
  readonly slowest: number;
  readonly seconds: number;
}

/** Of how many requests lost for one reason the time is kept: a load that loses all it sends fills no memory. */
const mostTimes = 1000;

/** A load that runs. */
export interface Load {
  /** Requests sent so far. */
  readonly sent: () => number;
  /**
   * Ends it.
   * @param atLeast goes on until so many requests were sent. Default: 0.
   */
  stop(atLeast?: number): Promise<LoadResult>;
}

type Answer =
  | { readonly ok: true }
  | { readonly ok: false; readonly reason: string; readonly again: boolean };

/** Starts to ask, and goes on until it is stopped. Every request that has no answer with status 200 is counted as lost. */
export function startLoad(options: LoadOptions): Load {
  const { addresses, hosts = [], path = "/", keepAlive = false } = options;
  const { concurrency = 8, rate = 300, timeout = 5000, onSlow } = options;
  const agent = keepAlive ? new Agent({ keepAlive, maxSockets: concurrency }) : undefined;
  const reasons: Record<string, number> = {};
  const lostAt: Record<string, number[]> = {};
  const began = performance.now();
  let [total, lost, repeated, slowest] = [0, 0, 0, 0];
  let last = Number.POSITIVE_INFINITY;

  /** @param by the connections that may be used again; false for a new one, where those have been closed. */
  const send = (address: string, host: string, by: Agent | false = agent ?? false): Promise<Answer> =>
    new Promise((done) => {
      const fail = (reason: string, again = false) => done({ ok: false, reason, again });
      const asked = request(
        `http://${address}${path}`,
        {
          headers: { host, accept: "application/json" },
          agent: by,
          signal: AbortSignal.timeout(timeout),
        },
        (response) => {
          response.once("error", (error) =>
            fail(`cut off: ${(error as NodeJS.ErrnoException).code ?? error.name}`),
          );
          response.once("end", () => {
            if (response.statusCode === 200) done({ ok: true });
            else fail(`status ${response.statusCode}`);
          });
          response.resume();
        },
      );
      const slow = setTimeout(() => {
        const port = asked.socket?.localPort;
        if (port !== undefined) onSlow?.(address, port);
      }, 1500);
      asked.once("close", () => clearTimeout(slow));
      asked.once("error", (error: NodeJS.ErrnoException) => {
        const reason =
          error.name === "TimeoutError" || error.name === "AbortError"
            ? "no answer"
            : (error.code ?? error.message);
        fail(reason, asked.reusedSocket && ["ECONNRESET", "EPIPE"].includes(reason));
      });
      asked.end();
    });

  const worker = async () => {
    while (total < last) {
      const turn = total;
      total += 1;
      const due = began + (turn * 1000) / rate;
      const early = due - performance.now();
      if (early > 1) await new Promise((done) => setTimeout(done, early));
      const address = addresses[turn % addresses.length] ?? "";
      // Every host through every address, whatever their numbers have in common.
      const host = hosts[Math.floor(turn / addresses.length) % hosts.length] ?? address;
      const sentAt = performance.now();
      let answer = await send(address, host);
      if (!answer.ok && answer.again) {
        repeated += 1;
        answer = await send(address, host, false);
      }
      slowest = Math.max(slowest, performance.now() - sentAt);
      if (answer.ok) continue;
      lost += 1;
      const reason = `${host} through ${address}: ${answer.reason}`;
      reasons[reason] = (reasons[reason] ?? 0) + 1;
      lostAt[reason] ??= [];
      if (lostAt[reason].length < mostTimes) lostAt[reason].push(tenths(sentAt - began));
    }
  };
  const workers = Promise.all(Array.from({ length: concurrency }, worker));
  return {
    sent: () => total,
    stop: async (atLeast = 0) => {
      last = Math.max(total, atLeast);
      await workers;
      agent?.destroy();
      // Answers come in another order than requests were sent.
      for (const times of Object.values(lostAt)) times.sort((a, b) => a - b);
      const seconds = tenths(performance.now() - began);
      return { total, lost, repeated, reasons, lostAt, slowest: Math.round(slowest), seconds };
    },
  };
}

/** Milliseconds as seconds, to a tenth. */
const tenths = (milliseconds: number) => Math.round(milliseconds / 100) / 10;

/**
 * When requests were lost, so that it can be compared with what the change did then.
 * @param times seconds, in order; those less than a second apart are one span.
 * @returns such as `21.3–26.1 s, 40 s`.
 */
export function spans(times: readonly number[], most = 8): string {
  const found: { from: number; to: number }[] = [];
  for (const time of times) {
    const last = found.at(-1);
    if (last && time - last.to < 1) last.to = time;
    else found.push({ from: time, to: time });
  }
  const words = found.slice(0, most).map(({ from, to }) => (from === to ? `${from}` : `${from}–${to}`));
  return `${words.join(", ")} s${found.length > most ? ` and ${found.length - most} later` : ""}`;
}

/** What a load lost, in words: how many for which reason, and when. Empty where nothing was. */
export const lossesOf = ({ reasons, lostAt }: LoadResult): string =>
  Object.entries(reasons)
    .map(([why, count]) => `${count} ${why}, sent at ${spans(lostAt[why] ?? [])}`)
    .join("; ");

/**
 * What requests to the lab's three apps lose while a change goes on, by new connections and by ones that are kept.
 *
 * @param atLeast requests of each kind are sent, also where the change takes less time.
 * @param inspect looks at the connection of a request that waits for its answer, by the port of this computer; its words
 * become part of what was lost. Default: nothing looks.
 * @returns in words, as a fault's outcome; of what was lost also when, in seconds since the change began.
 */
export async function lossDuring(
  addresses: readonly string[],
  atLeast: number,
  change: () => Promise<unknown>,
  inspect?: (address: string, port: number) => Promise<string>,
): Promise<{ readonly happened: string; readonly lost: string }> {
  const hosts = ["app1.com", "app2.com", "any.other"];
  const evidence: Promise<string>[] = [];
  const onSlow = (address: string, port: number) => {
    if (inspect && evidence.length < 10) evidence.push(inspect(address, port).catch(String));
  };
  const loads = [false, true].map((keepAlive) =>
    startLoad({ addresses, hosts, keepAlive, rate: 200, onSlow }),
  );
  let results: readonly LoadResult[] = [];
  try {
    await change();
  } finally {
    results = await Promise.all(loads.map((one) => one.stop(atLeast)));
  }
  const words = results
    .map(({ lost, total }, index) => `${lost} of ${total} by ${index ? "kept" : "new"} connections`)
    .join(", ");
  const lost = results.map(lossesOf).filter(Boolean);
  if (lost.length > 0) lost.push(...(await Promise.all(evidence)));
  return { happened: `requests lost: ${words}`, lost: lost.join("; ") || "nothing" };
}
