import { Agent, request } from "node:http";
import { request as requestSecurely, Agent as SecureAgent } from "node:https";
import { setTimeout as pause } from "node:timers/promises";

/** Where requests go. */
export interface Target {
  /** Where an Ingress controller or a server listens, such as `192.168.42.110` or `127.0.0.1:8888`. */
  readonly address: string;
  /** The `Host` header. */
  readonly host: string;
  /** Default: `/`. */
  readonly path?: string;
  /** PEM: use HTTPS and require a certificate for the host by this CA. Default: HTTP. */
  readonly authority?: string;
}

/** What a load requests, and how. */
export interface RequestsOptions {
  /** Used in turn. */
  readonly targets: readonly Target[];
  /** Whether connections are reused. Default: false, one for each request. */
  readonly keepAlive?: boolean;
  /** Requests under way at once. Default: 8. */
  readonly concurrency?: number;
  /** Requests a second, at most. Default: 300. */
  readonly rate?: number;
  /** The expected status. Default: 200. */
  readonly status?: number;
  /** Milliseconds for one answer, after which the request counts as lost. Default: 5000. */
  readonly timeout?: number;
  /** Called for a request without an answer after 1.5 s, with the address and this computer's port of its connection. */
  readonly onSlow?: ((address: string, port: number) => void) | undefined;
  /** Called for each finished request, with the milliseconds that it took and whether it was answered. */
  readonly onDone?: (ms: number, isAnswered: boolean) => void;
}

/** The result of a load. */
export interface LoadResult {
  readonly total: number;
  readonly lost: number;
  /**
   * Requests that were sent again because the server had closed the idle connection that they were sent on. Browsers and
   * HTTP libraries do so by themselves (RFC 9110, 9.2.2): nothing was answered, and a GET may be repeated.
   */
  readonly repeated: number;
  /** Lost requests by reason. */
  readonly reasons: Readonly<Record<string, number>>;
  /** When they were sent, in seconds since the start: for each reason the first {@link mostTimes}, in order. */
  readonly lostAt: Readonly<Record<string, readonly number[]>>;
  /** The slowest answer, in milliseconds. */
  readonly slowest: number;
  readonly seconds: number;
}

/** The times kept for each reason, so that a load that loses everything does not fill the memory. */
const mostTimes = 1000;

/** A running load. */
export interface Load {
  /** Requests sent so far. */
  readonly sent: () => number;
  /**
   * Ends it.
   * @param atLeast continues until so many requests were sent. Default: 0.
   */
  stop(atLeast?: number): Promise<LoadResult>;
}

type Answer =
  | { readonly ok: true }
  | { readonly ok: false; readonly reason: string; readonly again: boolean };

/** How to connect to a target. */
interface Way extends Required<Omit<Target, "authority">> {
  readonly secure: { readonly ca: string; readonly allowPartialTrustChain: true } | undefined;
  /** The pool of reusable connections; false: a new one for each request. */
  readonly agent: Agent | SecureAgent | false;
}

/** Sends requests until stopped. Every request without the expected answer counts as lost. */
export function startRequests(options: RequestsOptions): Load {
  const { targets, keepAlive = false, concurrency = 8, rate = 300 } = options;
  const kept = { keepAlive, maxSockets: concurrency };
  const agents: (Agent | SecureAgent)[] = [];
  const ways = targets.map(({ address, host, path = "/", authority }): Way => {
    const secure =
      authority === undefined ? undefined : ({ ca: authority, allowPartialTrustChain: true } as const);
    const agent = keepAlive && (secure ? new SecureAgent({ ...kept, ...secure }) : new Agent(kept));
    if (agent) agents.push(agent);
    return { address, host, path, secure, agent };
  });
  const reasons: Record<string, number> = {};
  const lostAt: Record<string, number[]> = {};
  const began = performance.now();
  const ending = new AbortController();
  let [turns, total, lost, repeated, slowest] = [0, 0, 0, 0, 0];
  let last = Number.POSITIVE_INFINITY;
  let due = began;

  const worker = async () => {
    while (turns < last) {
      const turn = turns;
      turns += 1;
      const now = performance.now();
      // Do not catch up on missed requests.
      const at = Math.max(due, now);
      due = at + 1000 / rate;
      if (at - now > 1) await pause(at - now, undefined, { signal: ending.signal }).catch(() => {});
      const way = ways[turn % ways.length];
      if (turn >= last || way === undefined) return;
      total += 1;
      const sentAt = performance.now();
      let answer = await send(way, options);
      if (!answer.ok && answer.again) {
        repeated += 1;
        answer = await send({ ...way, agent: false }, options);
      }
      const took = performance.now() - sentAt;
      slowest = Math.max(slowest, took);
      options.onDone?.(took, answer.ok);
      if (answer.ok) continue;
      lost += 1;
      const reason = `${way.host} through ${way.address}: ${answer.reason}`;
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
      if (total >= atLeast) ending.abort();
      await workers;
      for (const agent of agents) agent.destroy();
      // Answers arrive in a different order than their requests.
      for (const times of Object.values(lostAt)) times.sort((a, b) => a - b);
      const seconds = tenths(performance.now() - began);
      return { total, lost, repeated, reasons, lostAt, slowest: Math.round(slowest), seconds };
    },
  };
}

/** Sends one request. Never throws. */
function send(
  { address, host, path, secure, agent }: Way,
  { timeout = 5000, status = 200, onSlow }: Pick<RequestsOptions, "timeout" | "status" | "onSlow">,
): Promise<Answer> {
  return new Promise((done) => {
    const fail = (reason: string, again = false) => done({ ok: false, reason, again });
    const asked = (secure ? requestSecurely : request)(
      `${secure ? "https" : "http"}://${address}${path}`,
      {
        headers: { host, accept: "application/json" },
        ...{ ...secure, agent, signal: AbortSignal.timeout(timeout) },
      },
      (response) => {
        response.once("error", (error) =>
          fail(`cut off: ${(error as NodeJS.ErrnoException).code ?? error.name}`),
        );
        response.once("end", () => {
          if (response.statusCode === status) done({ ok: true });
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
      const isLate = error.name === "TimeoutError" || error.name === "AbortError";
      const reason = isLate ? "no answer" : (error.code ?? error.message);
      fail(reason, asked.reusedSocket && ["ECONNRESET", "EPIPE"].includes(reason));
    });
    asked.end();
  });
}

/** Converts milliseconds to seconds, rounded to a tenth. */
const tenths = (milliseconds: number) => Math.round(milliseconds / 100) / 10;
