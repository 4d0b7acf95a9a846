import { setTimeout as pause } from "node:timers/promises";
import type { Config } from "../shared/config.ts";
import { type App, createAppServer, logLine, runApp, type WebServer } from "../shared/server.ts";
import { accessLine, accessLog } from "./access-log.ts";
import { admin } from "./admin.ts";
import { type ApiParts, api } from "./api.ts";
import { Database } from "./database.ts";
import { frontend } from "./frontend.ts";
import { LogCounter, logMetrics } from "./log-metrics.ts";
import { Sessions } from "./session.ts";
import { databaseSettings, type Folders, foldersOf, secret, setting } from "./settings.ts";

/** The roles of the image's containers, by argument. */
const roles = {
  frontend: makeFrontend,
  api: makeApi,
  admin: makeAdmin,
  // The sidecar in the frontend's pod.
  "log-metrics": makeLogMetrics,
} as const;
type Role = keyof typeof roles;

/** An app, and the resources to close with its server. */
interface Made {
  readonly app: Omit<App, "note">;
  readonly end?: () => Promise<void>;
}

const complain = (error: unknown): void => logLine(String(error));

function makeFrontend(config: Config, folders: Folders): Made {
  const apiUrl = setting(folders, "api-url");
  if (URL.parse(apiUrl)?.protocol !== "http:")
    throw new RangeError(`api-url is "${apiUrl}"; it must be a URL that begins with http://`);
  const [title, greeting] = [setting(folders, "title"), setting(folders, "greeting")];
  return { app: frontend(config, { title, greeting, apiUrl, complain }) };
}

function makeParts(
  config: Config,
  folders: Folders,
  { patienceMs }: Options,
): { parts: ApiParts; end: () => Promise<void> } {
  const database = new Database(databaseSettings(folders), config.pod, patienceMs);
  const sessions = new Sessions(secret(folders, "admin-password"));
  const ending = new AbortController();
  void database.prepare(ending.signal, complain);
  const end = () => {
    ending.abort();
    return database.end();
  };
  return { parts: { database, sessions, complain }, end };
}

function makeApi(config: Config, folders: Folders, options: Options): Made {
  const { parts, end } = makeParts(config, folders, options);
  return { app: api(config, parts), end };
}

function makeAdmin(config: Config, folders: Folders, options: Options): Made {
  const { parts, end } = makeParts(config, folders, options);
  return { app: admin(config, parts), end };
}

const defaultLogFile = "/var/log/my-app/access.log";

function makeLogMetrics(_config: Config, _folders: Folders, options: Options): Made {
  const { logFile = defaultLogFile, neighbourPort = 8080 } = options;
  return { app: logMetrics(new LogCounter(logFile), `http://127.0.0.1:${neighbourPort}`, complain) };
}

/**
 * Waits until the database answers; for an init container.
 * @param signal aborts the wait.
 */
export async function waitForDatabase(folders: Folders, signal: AbortSignal): Promise<void> {
  const database = new Database(databaseSettings(folders), "wait", 0);
  const answered = new AbortController();
  const over = AbortSignal.any([signal, answered.signal]);
  let told = "";
  const ask = async () => {
    const reason = await database.silence();
    if (reason === undefined) answered.abort();
    else if (reason !== told && !over.aborted) logLine(`waiting for the database: ${reason}`);
    told = reason ?? told;
  };
  // Where the Service has no ready pod yet, a connection may get no answer for seconds: others are tried meanwhile.
  while (!over.aborted) {
    void ask();
    await pause(500, undefined, { signal: over }).catch(() => {});
  }
  void database.end();
}

/** Overrides for tests. */
interface Options {
  /** Default: /var/log/my-app/access.log. */
  readonly logFile?: string;
  /** Port of the frontend that `log-metrics` accompanies. Default: 8080. */
  readonly neighbourPort?: number;
  /** Milliseconds for which a request waits for the database. Default: 20 s. */
  readonly patienceMs?: number;
}

/** Creates a role's server without listening yet. @throws RangeError if a setting is missing. */
export function createMyApp(
  role: string | undefined,
  config: Config,
  folders: Folders,
  options: Options = {},
): WebServer {
  if (role === undefined || !Object.hasOwn(roles, role))
    throw new RangeError(`The argument must be one of ${Object.keys(roles).join(", ")}, wait`);
  const { app, end } = roles[role as Role](config, folders, options);
  const log =
    role === "frontend"
      ? accessLog(options.logFile ?? defaultLogFile, complain)
      : (line: string) => process.stdout.write(`${line}\n`);
  const made = createAppServer(config, { ...app, note: (record) => void log(accessLine(config, record)) });
  let ended: Promise<boolean> | undefined;
  const stop = async () => {
    const clean = await made.stop();
    await end?.();
    return clean;
  };
  return {
    server: made.server,
    metricsServer: made.metricsServer,
    stop: () => {
      ended ??= stop();
      return ended;
    },
  };
}

async function main(): Promise<void> {
  const [, , role] = process.argv;
  const folders = foldersOf(process.env);
  if (role !== "wait") return runApp((config) => createMyApp(role, config, folders));
  const ending = new AbortController();
  for (const signal of ["SIGTERM", "SIGINT"] as const) process.on(signal, () => ending.abort());
  try {
    await waitForDatabase(folders, ending.signal);
    process.exit(ending.signal.aborted ? 1 : 0);
  } catch (error) {
    process.stderr.write(`${error instanceof Error ? error.message : String(error)}\n`);
    process.exitCode = 2;
  }
}

if (process.argv[1] === import.meta.filename) await main();
