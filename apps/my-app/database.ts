import { randomUUID } from "node:crypto";
import { setTimeout as pause } from "node:timers/promises";
import { Pool, type QueryResultRow } from "pg";
import type { Entry, NewEntry } from "./entries.ts";
import type { DatabaseSettings } from "./settings.ts";

/** Milliseconds for which a request waits for a database that is briefly unavailable, as while its pod is replaced. */
const patienceMs = 20_000;

/** Number of entries that are listed. */
const listed = 100;

/** The database's answer, and the host that gave it. */
export interface Listed {
  readonly entries: readonly Entry[];
  /** The host that was asked. */
  readonly host: string;
}

/** The guest book's database: reads and writes go to separate hosts. */
export class Database {
  readonly #hosts: { readonly write: Host; readonly read: Host };
  readonly #patience: number;
  readonly #made = Promise.withResolvers<true>();

  /** @param patience Milliseconds. */
  constructor(settings: DatabaseSettings, app: string, patience = patienceMs) {
    const write = new Host(settings.host, settings, app);
    const { readHost, host } = settings;
    this.#hosts = { write, read: readHost === host ? write : new Host(readHost, settings, app) };
    this.#patience = patience;
  }

  /** Creates the table as soon as the database answers, whichever pod comes first. */
  async prepare(signal: AbortSignal, complain: (error: unknown) => void): Promise<void> {
    let told = "";
    while (!signal.aborted)
      try {
        return await this.#make();
      } catch (error) {
        if (String(error) !== told) complain(error);
        told = String(error);
        await pause(500, undefined, { signal }).catch(() => {});
      }
  }

  async #make(): Promise<void> {
    // Several pods may run this at once, and `if not exists` alone does not prevent a race.
    await this.#hosts.write.query(`do $$ begin
      perform pg_advisory_xact_lock(7266);
      create table if not exists entries (
        id bigint generated always as identity primary key,
        key uuid not null unique,
        name text not null,
        text text not null,
        at timestamptz not null default now()
      );
    end $$`);
    this.#made.resolve(true);
  }

  /** Why the primary does not answer; undefined if it does. */
  silence(): Promise<string | undefined> {
    return this.#hosts.write.query("select 1").then(
      () => undefined,
      (error: unknown) => String(error),
    );
  }

  /**
   * Why the database cannot serve; undefined if it can. Answers within a second; it waits for a database that is not reached
   * yet, so that a new pod is ready at its first probe and not five seconds later at its second.
   */
  async unready(): Promise<string | undefined> {
    const late = pause(900, "the database does not answer");
    if ((await Promise.race([this.#made.promise, late])) !== true) return "the database was not reached yet";
    const asked = [this.#hosts.write, this.#hosts.read].map((host) => host.query("select 1"));
    return await Promise.race([
      Promise.any(asked).then(
        () => undefined,
        () => "the database does not answer",
      ),
      late,
    ]);
  }

  /** The latest entries. @param including an entry that must be among them if it exists: the reader has written it. */
  async list(including = 0): Promise<Listed> {
    const { read, write } = this.#hosts;
    const [answer, host] = await this.#patiently(async (attempt) => {
      // If no replica answers, ask the primary.
      const asked = attempt % 2 === 0 ? read : write;
      return [await asked.query<Row>(latest, [listed]), asked] as const;
    });
    const isBehind = host !== write && including > Number(answer[0]?.id ?? 0);
    if (!isBehind) return { entries: answer.map(entryOf), host: host.name };
    const rows = await this.#patiently(() => write.query<Row>(latest, [listed]));
    return { entries: rows.map(entryOf), host: write.name };
  }

  /** Writes an entry exactly once, however often the connection is lost meanwhile. */
  async add({ name, text }: NewEntry): Promise<Entry> {
    const key = randomUUID();
    const [row] = await this.#patiently(async () => {
      await this.#hosts.write.query(
        "insert into entries (key, name, text) values ($1, $2, $3) on conflict (key) do nothing",
        [key, name, text],
      );
      return await this.#hosts.write.query<Row>("select id, name, text, at from entries where key = $1", [
        key,
      ]);
    });
    if (row === undefined) throw new Error("the new entry was deleted meanwhile");
    return entryOf(row);
  }

  /** @returns whether it existed. */
  async remove(id: number): Promise<boolean> {
    let isRetry = false;
    const rows = await this.#patiently(async (attempt) => {
      isRetry = attempt > 0;
      return await this.#hosts.write.query<Row>("delete from entries where id = $1 returning id", [id]);
    });
    // An earlier attempt whose connection was lost may have succeeded.
    return rows.length > 0 || isRetry;
  }

  async end(): Promise<void> {
    await Promise.all([...new Set(Object.values(this.#hosts))].map((host) => host.end()));
  }

  async #patiently<T>(work: (attempt: number) => Promise<T>): Promise<T> {
    const until = performance.now() + this.#patience;
    for (let attempt = 0; ; attempt++)
      try {
        return await work(attempt);
      } catch (error) {
        if (!isPassing(error) || performance.now() > until) throw error;
        // A new, empty database gets its table too.
        if ((error as { readonly code?: unknown }).code === noTable) await this.#make().catch(() => {});
        await pause(Math.min(50 * 2 ** attempt, 500));
      }
  }
}

const latest = "select id, name, text, at from entries order by id desc limit $1";

interface Row {
  readonly id: string;
  readonly name: string;
  readonly text: string;
  readonly at: Date;
}

const entryOf = ({ id, name, text, at }: Row): Entry => ({
  id: Number(id),
  name,
  text,
  at: at.toISOString(),
});

/** A connection pool for one host. */
class Host {
  readonly name: string;
  readonly #pool: Pool;

  constructor(name: string, { port, name: database, user, password }: DatabaseSettings, app: string) {
    this.name = name;
    this.#pool = new Pool({
      host: name,
      port,
      database,
      user,
      password,
      application_name: app,
      // The database takes 60 connections from all pods together. With eight each, twelve pods blocked each other and served
      // a sixth.
      max: 4,
      connectionTimeoutMillis: 3000,
      statement_timeout: 10_000,
      query_timeout: 12_000,
      keepAlive: true,
      // Reconnecting spreads connections over a Service's pods.
      maxLifetimeSeconds: 300,
    });
    // An idle connection that breaks is replaced when the next one is needed.
    this.#pool.on("error", () => {});
  }

  async query<R extends QueryResultRow>(text: string, values: readonly unknown[] = []): Promise<R[]> {
    return (await this.#pool.query<R>(text, [...values])).rows;
  }

  end(): Promise<void> {
    return this.#pool.end();
  }
}

const noTable = "42P01";

/** PostgreSQL's error codes while it starts, stops, is read-only, or does not know a new password yet. */
const passingStates = /^(08|57P0|25006|28P01|28000|3D000|42P01|53300)/;

/** Network errors while a database is being replaced. */
const passingFaults =
  /^(ECONN|EPIPE|ETIMEDOUT|EHOSTUNREACH|ENETUNREACH|ENOTFOUND|EAI_AGAIN)|Connection terminated|timeout exceeded when trying to connect|Query read timeout/;

/** Whether a retry may succeed. */
export function isPassing(error: unknown): boolean {
  const {
    code,
    message = "",
    errors = [],
  } = error as {
    readonly code?: unknown;
    readonly message?: string;
    /** One error for each address of a host. */
    readonly errors?: readonly unknown[];
  };
  return (
    passingStates.test(String(code)) ||
    passingFaults.test(String(code)) ||
    passingFaults.test(message) ||
    errors.some(isPassing)
  );
}
