import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { setTimeout as pause } from "node:timers/promises";
import { preferredFormat } from "./accept.ts";
import { type Config, defaultLingerMs, readConfig } from "./config.ts";
import { Metrics } from "./metrics.ts";

/** Maximum duration of a request, in milliseconds. */
export const slowestMs = 30_000;

/** Milliseconds for open requests to finish once no new ones are accepted. */
const drainMs = slowestMs + 1000;

/** Milliseconds without a request after which no more are expected. */
const quietMs = 2000;

/** Maximum time after SIGTERM in which new requests are answered, in milliseconds. */
const longestLinger = (lingerMs: number): number => lingerMs * 2.5;

/** Seconds from SIGTERM until the last request is answered: the minimum of a pod's grace period. */
export const graceSeconds = Math.ceil((longestLinger(defaultLingerMs) + drainMs) / 1000) + 4;

export interface Exchange {
  readonly request: IncomingMessage;
  readonly response: ServerResponse;
  readonly url: URL;
  /** Sends a response. `type` without a character set, which is UTF-8. */
  readonly send: (
    status: number,
    type: string,
    body: string,
    headers?: Readonly<Record<string, string | readonly string[]>>,
  ) => void;
  /** Responds with one sentence, or with JSON if the client prefers it. */
  readonly sendProblem: (
    status: number,
    error: string,
    headers?: Readonly<Record<string, string | readonly string[]>>,
  ) => void;
}

export interface AccessRecord {
  readonly method: string;
  readonly host: string | null;
  readonly path: string;
  readonly status: number;
  readonly ms: number;
  /** Whether the connection was lost before the answer was sent. */
  readonly cut: boolean;
  /** The client's address; unavailable once a connection is lost. */
  readonly peer: string | null;
  readonly request: IncomingMessage;
}

export interface App {
  readonly handle: (exchange: Exchange) => void | Promise<void>;
  /** Why it is not ready. Default: it always is. */
  readonly unready?: () => Promise<string | undefined>;
  /** Additional metrics in Prometheus text format. Default: none. */
  readonly metrics?: () => Promise<string>;
  /** Called after each request that is not a probe. */
  readonly note?: (record: AccessRecord) => void;
  /** Reports internal errors. */
  readonly complain?: (error: unknown) => void;
}

/** A server that can shut down without dropping a request. */
export interface WebServer {
  readonly server: Server;
  readonly metricsServer: Server;
  /** Shuts down: unready at once, still answering as `lingerMs` says, then open requests finish. True: none was aborted. */
  readonly stop: () => Promise<boolean>;
}

/**
 * Creates the server without listening yet. It answers `/healthz` and `/readyz` itself. Metrics have a separate port,
 * because the Ingress exposes the app's port to everybody.
 */
export const createAppServer = (config: Config, app: App): WebServer => new GracefulServer(config, app);

/** Redirects to https. A controller that terminates TLS passes the original scheme in a header. */
function sendToHttps({ request, url, send, sendProblem }: Exchange, port: number): void {
  const host = URL.parse(`http://${request.headers.host ?? ""}`)?.hostname;
  const location = `https://${host}${port === 443 ? "" : `:${port}`}${url.pathname}${url.search}`;
  if (host) send(308, "text/plain", `${location}\n`, { location });
  else sendProblem(400, "The host cannot be read");
}

/** The status that proxies log when a client disconnects before the response. */
const hungUp = 499;

const probes = ["/healthz", "/readyz"];

class GracefulServer implements WebServer {
  readonly server: Server;
  readonly metricsServer: Server;
  readonly #config: Config;
  readonly #app: App;
  readonly #metrics = new Metrics();
  #ending: Promise<boolean> | undefined;
  #openRequests = 0;
  /** When the last request came that was not a probe, in milliseconds since the program's start. */
  #lastAsked = 0;
  #onQuiet: (() => void) | undefined;

  constructor(config: Config, app: App) {
    this.#config = config;
    this.#app = app;
    this.server = createServer((request, response) => {
      const url = URL.parse(request.url ?? "/", "http://localhost");
      this.#count(response);
      if (!probes.includes(url?.pathname ?? "")) this.#note(request, response);
      return this.#answer(request, response, url);
    });
    // Longer than Traefik keeps an idle connection (90 s): otherwise both may act on it at once, and a request is lost.
    this.server.keepAliveTimeout = 95_000;
    this.server.headersTimeout = 10_000;
    this.server.requestTimeout = 30_000;
    this.metricsServer = createServer((request, response) => this.#tell(request, response));
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

  #note(request: IncomingMessage, response: ServerResponse): void {
    const began = performance.now();
    this.#lastAsked = began;
    const peer = request.socket.remoteAddress?.replace(/^::ffff:/, "") ?? null;
    response.once("close", () => {
      const took = performance.now() - began;
      const method = request.method ?? "GET";
      const status = response.headersSent ? response.statusCode : hungUp;
      this.#metrics.count(method, status, took / 1000);
      this.#app.note?.({
        method,
        host: request.headers.host ?? null,
        path: request.url ?? "/",
        status,
        ms: Math.round(took),
        cut: !response.writableFinished,
        peer,
        request,
      });
    });
  }

  async #answer(request: IncomingMessage, response: ServerResponse, url: URL | null): Promise<void> {
    const send: Exchange["send"] = (status, type, body, headers = {}) => {
      // A proxy keeps its connections to a pod open: it must close this one before the pod is gone.
      if (this.#ending !== undefined) response.setHeader("connection", "close");
      response.writeHead(status, {
        "content-type": `${type}; charset=utf-8`,
        "content-length": Buffer.byteLength(body),
        "cache-control": "no-store",
        "x-content-type-options": "nosniff",
        ...headers,
      });
      response.end(request.method === "HEAD" ? undefined : body);
    };
    const sendProblem: Exchange["sendProblem"] = (status, error, headers) => {
      const json = preferredFormat(request.headers.accept) === "json";
      const body = json ? `${JSON.stringify({ app: this.#config.app, status, error })}\n` : `${error}\n`;
      send(status, json ? "application/json" : "text/plain", body, headers);
    };
    if (url === null) return sendProblem(400, "The path cannot be read");
    const exchange: Exchange = { request, response, url, send, sendProblem };
    try {
      if (probes.includes(url.pathname) && (request.method === "GET" || request.method === "HEAD"))
        await this.#probe(exchange);
      else if (this.#config.httpsPort !== undefined && request.headers["x-forwarded-proto"] === "http")
        sendToHttps(exchange, this.#config.httpsPort);
      else await this.#app.handle(exchange);
    } catch (error) {
      this.#app.complain?.(error);
      if (!response.headersSent) sendProblem(500, "Something went wrong here; the log says what");
      else response.destroy();
    }
  }

  async #probe({ url, send }: Exchange): Promise<void> {
    if (url.pathname === "/healthz") return send(200, "text/plain", "ok\n");
    const reason = this.#ending === undefined ? await this.#unready() : "shutting down";
    return reason === undefined ? send(200, "text/plain", "ready\n") : send(503, "text/plain", `${reason}\n`);
  }

  async #unready(): Promise<string | undefined> {
    const { version } = this.#config;
    // Simulates a rollout that cannot succeed.
    if (version.endsWith("-broken")) return `the version ${version} is never ready, as its name says`;
    return await this.#app.unready?.();
  }

  async #tell(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const end = (status: number, body: string) => {
      response.writeHead(status, { "content-type": "text/plain; version=0.0.4; charset=utf-8" });
      response.end(body);
    };
    if (URL.parse(request.url ?? "/", "http://localhost")?.pathname !== "/metrics")
      return end(404, "There is only /metrics here\n");
    try {
      const own = (await this.#app.metrics?.()) ?? "";
      end(200, this.#metrics.render(this.#openRequests) + own);
    } catch (error) {
      this.#app.complain?.(error);
      end(500, "Something went wrong here; the log says what\n");
    }
  }

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
    // Wait for requests, not for connections: an idle one would delay the shutdown for long.
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
    for (const server of [this.server, this.metricsServer]) {
      server.close();
      server.closeAllConnections();
    }
    return finished;
  }
}

/** Writes a line to standard output, with a timestamp. */
export const logLine = (line: string): void =>
  void process.stdout.write(`${new Date().toISOString()} ${line}\n`);

/**
 * Runs an app as the container's main process: until SIGTERM, then it shuts down as `stop` says. Exit code 2 if the
 * environment is invalid.
 */
export function runApp(make: (config: Config) => WebServer): void {
  let config: Config;
  let made: WebServer;
  try {
    config = readConfig(process.env);
    made = make(config);
  } catch (error) {
    process.stderr.write(`${error instanceof Error ? error.message : String(error)}\n`);
    process.exitCode = 2;
    return;
  }
  const { server, metricsServer, stop } = made;
  for (const one of [server, metricsServer])
    one.on("error", (error) => {
      process.stderr.write(`${error.message}\n`);
      process.exit(1);
    });
  if (config.metricsPort !== undefined) metricsServer.listen(config.metricsPort);
  server.listen(config.port, () => {
    const { port } = server.address() as AddressInfo;
    logLine(`${config.app} ${config.version} listens on port ${port}`);
  });

  let asked = false;
  for (const signal of ["SIGTERM", "SIGINT"] as const)
    process.on(signal, async () => {
      // A second signal ends it at once.
      if (asked) process.exit(1);
      asked = true;
      logLine(`${signal}: finishing open requests`);
      const clean = await stop();
      logLine(clean ? "all requests finished" : "some requests took too long and were cut off");
      process.exit(clean ? 0 : 1);
    });
}
