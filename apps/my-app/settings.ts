import { readFileSync } from "node:fs";
import { join } from "node:path";

/** Mount paths of a ConfigMap and a Secret. */
const configFolder = "/etc/my-app";
const secretFolder = "/etc/my-app-secret";

/** Connection settings of the database. */
export interface DatabaseSettings {
  /** Host for writes. */
  readonly host: string;
  /** Host for reads. */
  readonly readHost: string;
  readonly port: number;
  readonly name: string;
  readonly user: string;
  /** The current password: it is read for each connection, as it may change. */
  readonly password: () => string;
}

/** The folders of the settings. */
export interface Folders {
  readonly config: string;
  readonly secret: string;
}

/** CONFIG_DIR and SECRET_DIR, to run outside a pod. */
export const foldersOf = (env: Readonly<Record<string, string | undefined>>): Folders => ({
  config: env.CONFIG_DIR || configFolder,
  secret: env.SECRET_DIR || secretFolder,
});

/** One line of a ConfigMap. @throws RangeError that names the file if it is missing or empty. */
export function setting({ config }: Folders, name: string, fallback?: string): string {
  return lineOf(join(config, name), fallback);
}

/** A secret, without its final line break. No error shows its content. */
export const secret = ({ secret: folder }: Folders, name: string): string => lineOf(join(folder, name));

function lineOf(file: string, fallback?: string): string {
  let text: string;
  try {
    text = readFileSync(file, "utf8").replace(/\r?\n$/, "");
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === "ENOENT" && fallback !== undefined) return fallback;
    throw new RangeError(
      `${file} cannot be read (${code}); it must be a key of the app's ConfigMap or Secret`,
    );
  }
  if (text === "") throw new RangeError(`${file} is empty`);
  return text;
}

export function databaseSettings(folders: Folders): DatabaseSettings {
  const port = Number(setting(folders, "database-port", "5432"));
  if (!(Number.isInteger(port) && port > 0 && port < 65_536))
    throw new RangeError("database-port must be a whole number from 1 to 65535");
  const host = setting(folders, "database-host");
  // Report a missing one at startup, not at the first connection.
  secret(folders, "password");
  return {
    host,
    readHost: setting(folders, "database-read-host", host),
    port,
    name: setting(folders, "database-name"),
    user: setting(folders, "database-user"),
    password: () => secret(folders, "password"),
  };
}
