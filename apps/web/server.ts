import { createHash } from "node:crypto";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { hostname } from "node:os";
import { setTimeout as pause } from "node:timers/promises";
import { type Answer, type Identity, pageStyle, renderPage, renderText } from "./page.ts";

/** What the container's environment says. */
export interface Config extends Identity {
  /** TCP port to listen on; 0 takes a free one. */
  readonly port: number;
  /**
   * Milliseconds after SIGTERM in which new requests are still answered, at the least: the cluster learns of the end only
   * then, and Traefik takes in changes every 2 s at most. While requests keep coming it goes on, `longestLinger` at most.
   */
  readonly lingerMs: number;
}

/** The longest a visitor may ask `/slow` to take, in milliseconds. */
const slowestMs = 30_000;

/** Milliseconds that open requests get to finish once no new ones are taken. */
const drainMs = slowestMs + 1000;

const defaultLingerMs = 6000;

/** Milliseconds without a request after which nobody is expected to ask any more. */
const quietMs = 2000;

/** How long new requests are answered after SIGTERM at the most, in milliseconds. */
const longestLinger = (lingerMs: number): number => lingerMs * 2.5;

/** Seconds from SIGTERM until the last request is answered: what a pod's grace period must leave. */
export const graceSeconds = Math.ceil((longestLinger(defaultLingerMs) + drainMs) / 1000) + 4;

/**
 * Reads APP_NAME (default: app), APP_VERSION (dev), POD_NAME (the host name), NODE_NAME, POD_NAMESPACE, POD_IP,
 * PORT (8080) and LINGER_MS (6000). Empty counts as not set.
 *
 * @throws RangeError where a number is none or out of range.
 */
export function readConfig(env: Readonly<Record<string, string | undefined>>): Config {
  const given = (name: string) => env[name]?.trim() || null;
  return {
    app: given("APP_NAME") ?? "app",
    version: given("APP_VERSION") ?? "dev",
    pod: given("POD_NAME") ?? hostname(),
    node: given("NODE_NAME"),
    namespace: given("POD_NAMESPACE"),
    podIp: given("POD_IP"),
    port: wholeNumber("PORT", given("PORT") ?? "8080", 65_535),
    lingerMs: wholeNumber("LINGER_MS", given("LINGER_MS") ?? String(defaultLingerMs), 30_000),
  };
}

function wholeNumber(name: string, text: string, most: number): number {
  const value = /^\d{1,5}$/.test(text) ? Number(text) : Number.NaN;
  if (!(value <= most))
    throw new RangeError(`${name} is "${text}"; it must be a whole number from 0 to ${most}`);
  return value;
}

export type Format = "html" | "json" | "text";

/** The format that a request prefers by its Accept header. Browsers ask for HTML by name; the default is one line of text, as for curl. */
export function preferredFormat(accept: string | undefined): Format {
  const offered: readonly (readonly [Format, string, string])[] = [
    ["text", "text", "plain"],
    ["html", "text", "html"],
    ["json", "application", "json"],
  ];
  const ranges = (accept ?? "").split(",").map((range) => {
    const [name = "", ...parameters] = range.split(";").map((part) => part.trim().toLowerCase());
    const [type = "", subtype = ""] = name.split("/");
    const q = Number(parameters.find((parameter) => parameter.startsWith("q="))?.slice(2) ?? 1);
    return { type, subtype, q: Number.isNaN(q) ? 0 : q };
  });
  let best: { format: Format; q: number } = { format: "text", q: 0 };
  for (const [format, type, subtype] of offered) {
    // The most exact range decides: `application/json, */*;q=0.1` wants JSON.
    const range =
      ranges.find((each) => each.type === type && each.subtype === subtype) ??
      ranges.find((each) => each.type === type && each.subtype === "*") ??
      ranges.find((each) => each.type === "*");
    if (range !== undefined && range.q > best.q) best = { format, q: range.q };
  }
  return best.format;
}

/** What this server says to a request. */
export function answerTo(config: Config, request: IncomingMessage): Answer {
  const forwarded: Record<string, string> = {};
  for (const [name, value] of Object.entries(request.headers).sort(([a], [b]) => (a < b ? -1 : 1)))
    if (/^x-forwarded-|^x-real-ip$|^forwarded$/.test(name) && value !== undefined)
      forwarded[name] = Array.isArray(value) ? value.join(", ") : value;
  const peer = request.socket.remoteAddress?.replace(/^::ffff:/, "") ?? null;
  return {
    app: config.app,
    version: config.version,
    pod: config.pod,
    node: config.node,
    namespace: config.namespace,
    podIp: config.podIp,
    request: {
      // HEAD promises the very headers of GET, its length included.
      method: request.method === "HEAD" ? "GET" : (request.method ?? "GET"),
      host: request.headers.host ?? null,
      path: request.url ?? "/",
      protocol: `HTTP/${request.httpVersion}`,
      client: forwarded["x-forwarded-for"]?.split(",")[0]?.trim() || forwarded["x-real-ip"] || peer,
      peer,
      forwarded,
    },
  };
}

/** A server that can end without dropping a request. */
export interface WebServer {
  readonly server: Server;
  /** Ends it: unready at once, still answering as `lingerMs` says, then open requests finish. True: none was cut off. */
  readonly stop: () => Promise<boolean>;
}

/** Makes the server; it does not listen yet. `log` gets a line for each request that is not a probe. */
export const createWebServer = (config: Config, log: (line: string) => void = () => {}): WebServer =>
  new GracefulServer(config, log);

class GracefulServer implements WebServer {
  readonly server: Server;
  readonly #config: Config;
  readonly #styleHash: string;
  #ending: Promise<boolean> | undefined;
  #openRequests = 0;
  /** When the last request came that was not a probe, in milliseconds since the program's start. */
  #lastAsked = 0;
  #onQuiet: (() => void) | undefined;

  constructor(config: Config, log: (line: string) => void) {
    this.#config = config;
    this.#styleHash = createHash("sha256").update(pageStyle(config.app)).digest("base64");
    this.server = createServer((request, response) => {
      const path = URL.parse(request.url ?? "/", "http://localhost");
      this.#count(response);
      if (path?.pathname !== "/healthz" && path?.pathname !== "/readyz") this.#note(request, response, log);
      return this.#answer(request, response, path);
    });
    // Longer than Traefik keeps an idle connection (90 s): else both may act on it at once and a request is lost.
    this.server.keepAliveTimeout = 95_000;
    this.server.headersTimeout = 10_000;
    this.server.requestTimeout = 30_000;
  }

  readonly stop = (): Promise<boolean> => {
    this.#ending ??= this.#end();
    return this.#ending;
  };

  #count(response: ServerResponse): void {
    this.#openRequests += 1;
    response.once("close", () => {
      this.#openRequests -= 1;
      if (this.#openRequests === 0) this.#onQuiet?.();
    });
  }

  #note(request: IncomingMessage, response: ServerResponse, log: (line: string) => void): void {
    const began = performance.now();
    this.#lastAsked = began;
    response.once("close", () => {
      const took = Math.round(performance.now() - began);
      const cut = response.writableFinished ? "" : " (connection lost)";
      log(
        `${request.method} ${request.headers.host ?? "-"}${request.url} ${response.statusCode} ${took} ms${cut}`,
      );
    });
  }

  async #answer(request: IncomingMessage, response: ServerResponse, url: URL | null): Promise<void> {
    if (url === null) return this.#sendProblem(request, response, 400, "The path cannot be read");
    if (request.method !== "GET" && request.method !== "HEAD")
      return this.#sendProblem(request, response, 405, "Only GET and HEAD are answered here");
    switch (url.pathname) {
      case "/":
        return this.#sendPage(request, response);
      case "/healthz":
        return this.#send(request, response, 200, "text/plain", "ok\n");
      case "/readyz":
        return this.#ending === undefined
          ? this.#send(request, response, 200, "text/plain", "ready\n")
          : this.#send(request, response, 503, "text/plain", "shutting down\n");
      case "/slow": {
        // To see what a rollout or a deleted pod does to a request that is under way.
        const asked = url.searchParams.get("ms") ?? "2000";
        const wait = /^\d{1,5}$/.test(asked) ? Number(asked) : Number.NaN;
        if (!(wait <= slowestMs))
          return this.#sendProblem(
            request,
            response,
            400,
            `ms must be a whole number from 0 to ${slowestMs}`,
          );
        await pause(wait);
        return this.#sendPage(request, response);
      }
      default:
        return this.#sendProblem(request, response, 404, `There is no ${url.pathname} here`);
    }
  }

  #send(
    request: IncomingMessage,
    response: ServerResponse,
    status: number,
    type: string,
    body: string,
    headers: Readonly<Record<string, string>> = {},
  ): void {
    // A proxy keeps its connections to a pod open: it must let go of this one before the pod is gone.
    if (this.#ending !== undefined) response.setHeader("connection", "close");
    response.writeHead(status, {
      "content-type": `${type}; charset=utf-8`,
      "content-length": Buffer.byteLength(body),
      "cache-control": "no-store",
      "x-content-type-options": "nosniff",
      ...headers,
    });
    response.end(request.method === "HEAD" ? undefined : body);
  }

  #sendPage(request: IncomingMessage, response: ServerResponse): void {
    const answer = answerTo(this.#config, request);
    const send = (type: string, body: string, headers: Readonly<Record<string, string>> = {}) =>
      this.#send(request, response, 200, type, body, { vary: "Accept", ...headers });
    switch (preferredFormat(request.headers.accept)) {
      case "json":
        send("application/json", `${JSON.stringify(answer, null, 2)}\n`);
        break;
      case "text":
        send("text/plain", renderText(answer));
        break;
      case "html":
        send("text/html", renderPage(answer), {
          "content-security-policy": `default-src 'none'; style-src 'sha256-${this.#styleHash}'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'`,
          "referrer-policy": "no-referrer",
        });
    }
  }

  #sendProblem(request: IncomingMessage, response: ServerResponse, status: number, error: string): void {
    const json = preferredFormat(request.headers.accept) === "json";
    const extra = status === 405 ? { allow: "GET, HEAD" } : {};
    const body = json ? `${JSON.stringify({ app: this.#config.app, status, error })}\n` : `${error}\n`;
    this.#send(request, response, status, json ? "application/json" : "text/plain", body, extra);
  }

  /** Waits until no more requests come. */
  async #linger(): Promise<void> {
    const latest = performance.now() + longestLinger(this.#config.lingerMs);
    await pause(this.#config.lingerMs);
    for (;;) {
      const left = Math.min(this.#lastAsked + quietMs, latest) - performance.now();
      if (left <= 0) return;
      await pause(left);
    }
  }

  async #end(): Promise<boolean> {
    await this.#linger();
    this.server.close();
    // Requests are waited for, connections are not: one on which nothing was asked yet would hold the pod up for long.
    const quiet = new Promise<true>((done) => {
      this.#onQuiet = () => done(true);
      if (this.#openRequests === 0) this.#onQuiet();
    });
    const late = new AbortController();
    const finished = await Promise.race([
      quiet,
      pause(drainMs, false as const, { signal: late.signal }).catch(() => true),
    ]);
    late.abort();
    this.server.closeAllConnections();
    return finished;
  }
}

function main(): void {
  const log = (line: string) => process.stdout.write(`${new Date().toISOString()} ${line}\n`);
  let config: Config;
  try {
    config = readConfig(process.env);
  } catch (error) {
    process.stderr.write(`${error instanceof Error ? error.message : String(error)}\n`);
    process.exitCode = 2;
    return;
  }
  const { server, stop } = createWebServer(config, log);
  server.on("error", (error) => {
    process.stderr.write(`${error.message}\n`);
    process.exit(1);
  });
  server.listen(config.port, () => {
    const { port } = server.address() as AddressInfo;
    log(`${config.app} ${config.version} listens on port ${port}`);
  });

  let asked = false;
  for (const signal of ["SIGTERM", "SIGINT"] as const)
    process.on(signal, async () => {
      // Whoever asks twice does not want to wait.
      if (asked) process.exit(1);
      asked = true;
      log(`${signal}: finishing open requests`);
      const clean = await stop();
      log(clean ? "all requests finished" : "some requests took too long and were cut off");
      process.exit(clean ? 0 : 1);
    });
}

if (process.argv[1] === import.meta.filename) main();
