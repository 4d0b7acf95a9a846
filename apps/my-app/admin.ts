import { setTimeout as pause } from "node:timers/promises";
import type { Config } from "../shared/config.ts";
import type { App, Exchange } from "../shared/server.ts";
import type { ApiParts } from "./api.ts";
import { readBody, refuseOtherSites } from "./body.ts";
import { BadRequest, entryId } from "./entries.ts";
import { renderAdmin, renderLogin } from "./page.ts";
import { answer, identityOf, sendJson, sendPage, sendTo, wants } from "./respond.ts";
import { cookie, type Session, sessionSeconds } from "./session.ts";

/** Delay of the response to a wrong password, in milliseconds. */
const penaltyMs = 500;

/** Log-ins checked in parallel; further ones are told to retry. */
const mostLogins = 4;

/** The admin's pages, below `/login`: log in, list the entries, delete one, log out. A program gets a bearer token. */
export function admin(config: Config, parts: ApiParts): Omit<App, "note"> {
  const logins = { open: 0 };
  return {
    handle: (exchange) =>
      answer(config, exchange, parts.complain, () => route(config, parts, exchange, logins)),
    unready: () => parts.database.unready(),
    complain: parts.complain,
  };
}

async function route(
  config: Config,
  parts: ApiParts,
  exchange: Exchange,
  logins: { open: number },
): Promise<void> {
  const { request, url } = exchange;
  const { method } = request;
  const path = url.pathname.replace(/\/$/, "");
  if (path === "" && (method === "GET" || method === "HEAD")) return sendTo(exchange, "/login");
  const allowed = ways[path];
  if (allowed === undefined) throw new BadRequest(`There is no ${url.pathname} here`, 404);
  if (!allowed.includes(method ?? ""))
    return exchange.sendProblem(405, `Only ${allowed.join(" and ")} are answered here`, {
      allow: allowed.join(", "),
    });
  if (method !== "POST") return await show(config, parts, exchange);
  refuseOtherSites(request);
  if (path === "/login") return await logIn(config, parts, exchange, logins);
  return await change(parts, exchange, path);
}

const ways: Readonly<Record<string, readonly string[]>> = {
  "/login": ["GET", "HEAD", "POST"],
  "/login/delete": ["POST"],
  "/login/logout": ["POST"],
};

async function show(config: Config, { database, sessions }: ApiParts, exchange: Exchange): Promise<void> {
  const session = sessions.ofCookie(exchange.request) ?? sessions.ofBearer(exchange.request);
  const page = wants(exchange) === "html";
  if (session === undefined) {
    if (page) return sendPage(exchange, 200, renderLogin(config, undefined));
    return sendJson(exchange, 200, { ...identityOf(config), session: false });
  }
  const { entries, host } = await database.list(including(exchange.url));
  if (page) return sendPage(exchange, 200, renderAdmin(config, entries, host, session.formToken));
  sendJson(exchange, 200, { ...identityOf(config), session: true, database: host, entries });
}

/** Read from the primary: a replica may still show the entry that was just deleted. */
const including = ({ searchParams }: URL): number =>
  searchParams.has("changed") ? Number.MAX_SAFE_INTEGER : 0;

async function logIn(
  config: Config,
  { sessions }: ApiParts,
  exchange: Exchange,
  logins: { open: number },
): Promise<void> {
  const { sent, fields } = await readBody(exchange.request);
  if (logins.open >= mostLogins) throw new BadRequest("Too many log-ins at once: wait a moment", 429);
  logins.open += 1;
  try {
    if (typeof fields.password === "string" && (await sessions.isPassword(fields.password)))
      return welcome(config, exchange, sent === "form", sessions.begin());
    await pause(penaltyMs);
  } finally {
    logins.open -= 1;
  }
  const wrong = "That is not the password";
  if (sent === "form") return sendPage(exchange, 401, renderLogin(config, `${wrong}.`));
  exchange.sendProblem(401, wrong);
}

function welcome(config: Config, exchange: Exchange, isForm: boolean, session: Session): void {
  if (isForm) sendTo(exchange, "/login", { "set-cookie": cookie(exchange.request, session) });
  else sendJson(exchange, 200, { ...identityOf(config), token: session.token, seconds: sessionSeconds });
}

/** Fields that a form of the admin's page requires. A cookie alone is not enough: any page can make a browser send it. */
async function change({ database, sessions }: ApiParts, exchange: Exchange, path: string): Promise<void> {
  const { fields } = await readBody(exchange.request);
  const session = sessions.ofCookie(exchange.request);
  // The session has ended, or the page is from an earlier one.
  if (session === undefined) return sendTo(exchange, "/login");
  if (!sessions.isFormOf(session, fields.token))
    throw new BadRequest("The page is from an earlier session: reload it", 403);
  if (path === "/login/logout")
    return sendTo(exchange, "/login", { "set-cookie": cookie(exchange.request, undefined) });
  // An entry that somebody else has deleted meanwhile counts as deleted.
  await database.remove(entryId(String(fields.id)));
  sendTo(exchange, "/login?changed");
}
