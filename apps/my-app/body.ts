import type { IncomingMessage } from "node:http";
import { BadRequest } from "./entries.ts";

/** Maximum bytes of a body, more than the longest entry needs. */
const mostBytes = 16 * 1024;

/** Bytes to read and discard, so that the sender gets to read the error. */
const mostDrained = 1024 * 1024;

/** The content types of a body. */
type Sent = "form" | "json";

/** A request's body: a JSON object or a browser's form. @throws BadRequest */
export async function readBody(
  request: IncomingMessage,
): Promise<{ readonly sent: Sent; readonly fields: Readonly<Record<string, unknown>> }> {
  const sent = kindOf(request);
  const text = await textOf(request);
  if (sent === "form") return { sent, fields: Object.fromEntries(new URLSearchParams(text)) };
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    throw new BadRequest("The body is not JSON");
  }
  if (typeof value !== "object" || value === null || Array.isArray(value))
    throw new BadRequest("The body is not a JSON object");
  return { sent, fields: value as Record<string, unknown> };
}

function kindOf(request: IncomingMessage): Sent {
  const [type = ""] = (request.headers["content-type"] ?? "").split(";");
  switch (type.trim().toLowerCase()) {
    case "application/json":
      return "json";
    case "application/x-www-form-urlencoded":
      return "form";
    default:
      throw new BadRequest("The body must be application/json or application/x-www-form-urlencoded", 415);
  }
}

async function textOf(request: IncomingMessage): Promise<string> {
  const parts: Buffer[] = [];
  let size = 0;
  try {
    for await (const part of request as AsyncIterable<Buffer>) {
      size += part.length;
      if (size > mostDrained) break;
      if (size <= mostBytes) parts.push(part);
    }
  } catch {
    throw new BadRequest("The body is incomplete");
  }
  if (size > mostBytes) throw new BadRequest(`The body is longer than ${mostBytes} bytes`, 413);
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(Buffer.concat(parts));
  } catch {
    throw new BadRequest("The body is not UTF-8");
  }
}

/**
 * Refuses requests that another site's page triggers in a browser. Programs send neither header.
 * @throws BadRequest
 */
export function refuseOtherSites({ headers }: IncomingMessage): void {
  const { origin, host } = headers;
  const site = headers["sec-fetch-site"];
  const isOther =
    (site !== undefined && site !== "same-origin" && site !== "none") ||
    (origin !== undefined && URL.parse(origin)?.host !== host);
  if (isOther) throw new BadRequest("Another site's page cannot send this", 403);
}
