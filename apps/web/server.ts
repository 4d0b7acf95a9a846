import { createHash } from "node:crypto";
import type { IncomingMessage } from "node:http";
import { setTimeout as pause } from "node:timers/promises";
import { preferredFormat } from "../shared/accept.ts";
import type { Config } from "../shared/config.ts";
import {
  type AccessRecord,
  createAppServer,
  type Exchange,
  logLine,
  runApp,
  slowestMs,
  type WebServer,
} from "../shared/server.ts";
import { type Answer, pageStyle, renderPage, renderText } from "./page.ts";

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
      // HEAD must send the same headers as GET, including Content-Length.
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

/** Creates the server without listening yet. `log` gets a line for each request that is not a probe. */
export function createWebServer(config: Config, log: (line: string) => void = () => {}): WebServer {
  const styleHash = createHash("sha256").update(pageStyle(config.app)).digest("base64");
  return createAppServer(config, {
    handle: (exchange) => answer(config, styleHash, exchange),
    note: (record) => log(lineOf(record)),
    complain: (error) => log(String(error)),
  });
}

const lineOf = ({ method, host, path, status, ms, cut }: AccessRecord): string =>
  `${method} ${host ?? "-"}${path} ${status} ${ms} ms${cut ? " (connection lost)" : ""}`;

async function answer(config: Config, styleHash: string, exchange: Exchange): Promise<void> {
  const { request, url, sendProblem } = exchange;
  if (request.method !== "GET" && request.method !== "HEAD")
    return sendProblem(405, "Only GET and HEAD are answered here", { allow: "GET, HEAD" });
  if (url.pathname === "/slow") {
    // Shows what a rollout or a deleted pod does to a request in progress.
    const asked = url.searchParams.get("ms") ?? "2000";
    const wait = /^\d{1,5}$/.test(asked) ? Number(asked) : Number.NaN;
    if (!(wait <= slowestMs)) return sendProblem(400, `ms must be a whole number from 0 to ${slowestMs}`);
    await pause(wait);
  }
  // An Ingress forwards the original path, whatever it is.
  sendPage(config, styleHash, exchange);
}

function sendPage(config: Config, styleHash: string, { request, send }: Exchange): void {
  const said = answerTo(config, request);
  const sendAs = (type: string, body: string, headers: Readonly<Record<string, string>> = {}) =>
    send(200, type, body, { vary: "Accept", ...headers });
  switch (preferredFormat(request.headers.accept)) {
    case "json":
      sendAs("application/json", `${JSON.stringify(said, null, 2)}\n`);
      break;
    case "text":
      sendAs("text/plain", renderText(said));
      break;
    case "html":
      sendAs("text/html", renderPage(said), {
        "content-security-policy": `default-src 'none'; style-src 'sha256-${styleHash}'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'`,
        "referrer-policy": "no-referrer",
      });
  }
}

if (process.argv[1] === import.meta.filename) runApp((config) => createWebServer(config, logLine));
