import { preferredFormat } from "../shared/accept.ts";
import type { Config } from "../shared/config.ts";
import type { Markup } from "../shared/html.ts";
import type { Exchange } from "../shared/server.ts";
import { isPassing } from "./database.ts";
import { BadRequest } from "./entries.ts";
import { policy, renderProblem } from "./page.ts";

/** The responding pod, as JSON shows it. */
export const identityOf = ({ app, version, namespace, pod, node, podIp }: Config) => ({
  app,
  version,
  namespace,
  pod,
  node,
  podIp,
});

type Headers = Readonly<Record<string, string | readonly string[]>>;

export function sendJson({ send }: Exchange, status: number, value: object, headers: Headers = {}): void {
  send(status, "application/json", `${JSON.stringify(value, null, 2)}\n`, headers);
}

export function sendPage({ send }: Exchange, status: number, page: Markup, headers: Headers = {}): void {
  send(status, "text/html", page.text, {
    "content-security-policy": policy,
    // With `no-referrer`, browsers would not send a form's Origin either.
    "referrer-policy": "same-origin",
    ...headers,
  });
}

/** Redirects a browser to a page, by GET. */
export const sendTo = ({ send }: Exchange, location: string, headers: Headers = {}): void =>
  send(303, "text/plain", `${location}\n`, { location, ...headers });

export const wants = ({ request }: Exchange) => preferredFormat(request.headers.accept);

/** A role's responses, with what all have in common: who answered, and errors in words. */
export async function answer(
  config: Config,
  exchange: Exchange,
  complain: (error: unknown) => void,
  work: () => void | Promise<void>,
): Promise<void> {
  exchange.response.setHeader("x-pod", config.pod);
  if (config.node !== null) exchange.response.setHeader("x-node", config.node);
  try {
    await work();
  } catch (error) {
    if (!(error instanceof BadRequest) && !isPassing(error)) throw error;
    if (!(error instanceof BadRequest)) complain(error);
    const [status, text] =
      error instanceof BadRequest
        ? [error.status, error.message]
        : [
            503,
            "The database does not answer. Either nothing was changed, or the request was already carried out",
          ];
    // The body was not read completely, so the connection cannot be reused.
    const headers: Headers = status === 413 ? { connection: "close" } : {};
    if (wants(exchange) === "html") sendPage(exchange, status, renderProblem(config, text), headers);
    else exchange.sendProblem(status, text, headers);
  }
}
