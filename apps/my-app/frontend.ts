import { Agent, request as ask } from "node:http";
import type { Config } from "../shared/config.ts";
import type { App, Exchange } from "../shared/server.ts";
import { BadRequest, type Entry, entryId } from "./entries.ts";
import { askedOf, renderGuestBook } from "./page.ts";
import { answer, identityOf, sendJson, sendPage, wants } from "./respond.ts";

/** Dependencies of the frontend. */
interface FrontendParts {
  readonly title: string;
  readonly greeting: string;
  /** URL of the API, such as `http://api/api`. */
  readonly apiUrl: string;
  readonly complain: (error: unknown) => void;
}

/** The API's entries, and who answered. */
interface Book {
  readonly pod: string;
  readonly node: string | null;
  readonly database: string;
  readonly entries: readonly Entry[];
}

/** The guest book's page. If the API does not answer, the status is 503, with the rest of the page. */
export function frontend(config: Config, parts: FrontendParts): Omit<App, "note"> {
  // Idle connections must end before the API closes them (95 s).
  const agent = new Agent({ keepAlive: true, timeout: 60_000, maxSockets: 32 });
  return {
    handle: (exchange) =>
      answer(config, exchange, parts.complain, () => show(config, parts, exchange, agent)),
    complain: parts.complain,
  };
}

async function show(config: Config, parts: FrontendParts, exchange: Exchange, agent: Agent): Promise<void> {
  const { request, url } = exchange;
  if (url.pathname !== "/") throw new BadRequest(`There is no ${url.pathname} here`, 404);
  if (request.method !== "GET" && request.method !== "HEAD")
    return exchange.sendProblem(405, "Only GET and HEAD are answered here", { allow: "GET, HEAD" });
  const including = url.searchParams.get("including");
  const book = await read(parts.apiUrl, including === null ? undefined : entryId(including), agent).catch(
    (error: unknown) => parts.complain(error),
  );
  const status = book ? 200 : 503;
  const { title, greeting } = parts;
  const format = wants(exchange);
  const vary = { vary: "Accept" };
  if (format === "html") {
    const shown = book && { entries: book.entries, by: askedOf(book) };
    sendPage(exchange, status, renderGuestBook(config, { title, greeting, book: shown || undefined }), vary);
  } else if (format === "json") {
    const { entries, ...api } = book || { entries: undefined, pod: null };
    sendJson(exchange, status, { ...identityOf(config), title, entries: entries?.length ?? null, api }, vary);
  } else {
    const said = book
      ? `entries=${book.entries.length} api=${book.pod} database=${book.database}`
      : "api=none";
    const { app, version, pod, node } = config;
    exchange.send(status, "text/plain", `${app} ${version} pod=${pod} node=${node ?? "-"} ${said}\n`, vary);
  }
}

/** Timeout of the API in milliseconds: it waits itself for a database that is briefly unavailable. */
const withinMs = 25_000;

/** Calls the API. Retries a reused connection that the API had already closed. */
async function read(apiUrl: string, including: number | undefined, agent: Agent): Promise<Book> {
  const url = `${apiUrl.replace(/\/$/, "")}/entries${including === undefined ? "" : `?including=${including}`}`;
  try {
    return await readOnce(url, agent);
  } catch (error) {
    if (!["ECONNRESET", "EPIPE", "ECONNREFUSED"].includes(String((error as NodeJS.ErrnoException).code)))
      throw error;
    return await readOnce(url, new Agent());
  }
}

function readOnce(url: string, agent: Agent): Promise<Book> {
  return new Promise((done, fail) => {
    const options = { agent, signal: AbortSignal.timeout(withinMs), headers: { accept: "application/json" } };
    ask(url, options, async (response) => {
      try {
        const text = (await response.setEncoding("utf8").toArray()).join("");
        if (response.statusCode !== 200)
          throw new Error(`${url} answers ${response.statusCode}: ${text.trim()}`);
        done(JSON.parse(text) as Book);
      } catch (error) {
        fail(error);
      }
    })
      .on("error", fail)
      .end();
  });
}
