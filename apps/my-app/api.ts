import type { Config } from "../shared/config.ts";
import type { App, Exchange } from "../shared/server.ts";
import { readBody, refuseOtherSites } from "./body.ts";
import type { Database } from "./database.ts";
import { BadRequest, entryId, newEntry } from "./entries.ts";
import { answer, identityOf, sendJson, sendTo } from "./respond.ts";
import type { Sessions } from "./session.ts";

/** Dependencies of the API. */
export interface ApiParts {
  readonly database: Database;
  readonly sessions: Sessions;
  readonly complain: (error: unknown) => void;
}

/**
 * `GET /api` says who answers. `GET /api/entries` lists the latest 100, `POST` adds one (JSON, or a browser's form), `DELETE
 * /api/entries/ID` deletes one and requires an admin session as a bearer token.
 */
export const api = (config: Config, parts: ApiParts): Omit<App, "note"> => ({
  handle: (exchange) => answer(config, exchange, parts.complain, () => route(config, parts, exchange)),
  unready: () => parts.database.unready(),
  complain: parts.complain,
});

async function route(config: Config, parts: ApiParts, exchange: Exchange): Promise<void> {
  const { request, url } = exchange;
  const path = url.pathname.replace(/\/$/, "");
  const [, one] = /^\/api\/entries\/([^/]+)$/.exec(path) ?? [];
  const allowed = one !== undefined ? ["DELETE"] : ways[path];
  if (allowed === undefined) throw new BadRequest(`There is no ${url.pathname} here`, 404);
  if (!allowed.includes(request.method ?? ""))
    return exchange.sendProblem(405, `Only ${allowed.join(" and ")} are answered here`, {
      allow: allowed.join(", "),
    });
  if (one !== undefined) return await remove(config, parts, exchange, one);
  if (request.method === "POST") return await add(config, parts, exchange);
  if (path === "/api") return sendJson(exchange, 200, identityOf(config));
  const { entries, host } = await parts.database.list(including(url));
  return sendJson(exchange, 200, { ...identityOf(config), database: host, entries });
}

const ways: Readonly<Record<string, readonly string[]>> = {
  "/api": ["GET", "HEAD"],
  "/api/entries": ["GET", "HEAD", "POST"],
};

function including(url: URL): number {
  const text = url.searchParams.get("including");
  return text === null ? 0 : entryId(text);
}

async function add(config: Config, { database }: ApiParts, exchange: Exchange): Promise<void> {
  refuseOtherSites(exchange.request);
  const { sent, fields } = await readBody(exchange.request);
  const entry = await database.add(newEntry(fields));
  // Redirect after a POST, so that reloading the page does not repeat it.
  if (sent === "form") return sendTo(exchange, `/?including=${entry.id}`);
  sendJson(exchange, 201, { ...identityOf(config), entry });
}

async function remove(
  config: Config,
  { database, sessions }: ApiParts,
  exchange: Exchange,
  id: string,
): Promise<void> {
  if (sessions.ofBearer(exchange.request) === undefined)
    return exchange.sendProblem(401, "This needs the admin's session", { "www-authenticate": "Bearer" });
  if (!(await database.remove(entryId(id)))) throw new BadRequest(`There is no entry ${id}`, 404);
  sendJson(exchange, 200, { ...identityOf(config), deleted: entryId(id) });
}
