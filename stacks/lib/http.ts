import { type Agent as HttpAgent, request as requestHttp } from "node:http";
import { type Agent as HttpsAgent, request as requestHttps } from "node:https";

export interface HttpAnswer {
  readonly status: number;
  readonly body: string;
}

export interface HttpOptions {
  /** A `Host` header here is sent unchanged, whatever the URL says. */
  readonly headers?: Readonly<Record<string, string | readonly string[]>>;
  /** Timeout of the whole exchange, in milliseconds. Default: 3000. */
  readonly timeout?: number;
  /** JSON to send. Default: none, it is a GET. */
  readonly body?: string | undefined;
  /** Of a body: JSON to POST, or to merge into what is there. Default: `application/json`. */
  readonly contentType?: "application/json" | "application/merge-patch+json" | undefined;
  /** Keeps connections alive and, for https, holds the certificates. Default: a new connection for each request. */
  readonly agent?: HttpAgent | HttpsAgent;
}

/**
 * GETs a URL, or POSTs or PATCHes to it. Unlike `fetch` it sends the given `Host` header, and takes a certificate authority and a client certificate
 * from its agent.
 * @throws Error whose message says in a few words why there is no answer; never later than `timeout`.
 */
export function get(
  url: string,
  { headers: given = {}, timeout = 3000, body, contentType = "application/json", agent }: HttpOptions = {},
): Promise<HttpAnswer> {
  const secure = url.startsWith("https:");
  const signal = AbortSignal.timeout(timeout);
  const isGet = body === undefined;
  const method = isGet ? "GET" : contentType === "application/json" ? "POST" : "PATCH";
  const headers = { ...given, ...(isGet ? {} : { "content-type": contentType }) };
  const options = { method, headers, signal, agent: agent ?? false };
  return new Promise((resolve, reject) => {
    const fail = (cause: NodeJS.ErrnoException) =>
      reject(new Error(signal.aborted ? `timed out after ${timeout / 1000} s` : reason(cause), { cause }));
    const request = (secure ? requestHttps : requestHttp)(url, options, async (response) => {
      try {
        const parts: Buffer[] = [];
        for await (const part of response) parts.push(part as Buffer);
        resolve({ status: response.statusCode ?? 0, body: Buffer.concat(parts).toString("utf8") });
      } catch (error) {
        fail(error as NodeJS.ErrnoException);
      }
    });
    request.on("error", fail).end(body);
  });
}

const byThisClock = "by this computer's clock: compare `date` here and there, and set the wrong clock";

const reasons: Record<string, string> = {
  ECONNREFUSED: "connection refused",
  ECONNRESET: "connection closed without an answer",
  EHOSTUNREACH: "no route to this address",
  ENETUNREACH: "no route to this network",
  EINVAL: "no route to this address",
  ETIMEDOUT: "no answer",
  CERT_NOT_YET_VALID: `its certificate is not valid yet ${byThisClock}`,
  CERT_HAS_EXPIRED: `its certificate has expired ${byThisClock}`,
};

const reason = ({ code, message }: NodeJS.ErrnoException): string => reasons[code ?? ""] ?? message;
