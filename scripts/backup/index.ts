import { resolve } from "node:path";
import { databaseOwner as databaseName } from "../../stacks/components/guest-book.ts";
import { LabError, refusal } from "../../stacks/lib/errors.ts";
import type { DatabasePod } from "../../stacks/observe/database-pod.ts";
import { type BackupFile, writeBackup } from "./file.ts";
import { majorOf } from "./header.ts";

/** A table's contents. */
interface TableFacts {
  readonly name: string;
  readonly rows: number;
  /** Its latest timestamp: ISO 8601, UTC. Undefined if there is none. */
  readonly newest?: string;
}

interface DatabaseFacts {
  /** PostgreSQL's major version. */
  readonly major: number;
  readonly tables: readonly TableFacts[];
}

/** One line on the server, then one for each table: its name, its rows, the latest of its times. */
const question = `select pg_is_in_recovery(), current_setting('server_version_num');
select format('select %L, count(*), %s from %I.%I', relname, coalesce(
  format('to_char(max(%I) at time zone ''UTC'', ''YYYY-MM-DD"T"HH24:MI:SS"Z"'')', attname), 'null'), nspname, relname)
from pg_class join pg_namespace on pg_namespace.oid = relnamespace
left join lateral (select attname from pg_attribute where attrelid = pg_class.oid and atttypid = 'timestamptz'::regtype
  and attnum > 0 and not attisdropped order by attnum limit 1) as times on true
where relkind = 'r' and nspname not in ('pg_catalog', 'information_schema') order by relname \\gexec
`;

const psql = ["psql", "-XqAtw", "-v", "ON_ERROR_STOP=1", "-h", "/run/postgresql", "-U", "postgres"];

/** @throws LabError if the database does not answer, or is a replica. */
async function askDatabase({ name, run }: DatabasePod): Promise<DatabaseFacts> {
  const { exitCode, stdout, stderr } = await run([...psql, "-d", databaseName, "-f", "-"], {
    input: question,
  });
  const [first = "", ...rest] = stdout.trim().split("\n");
  const [recovery, version] = first.split("|");
  if (exitCode !== 0 || !["t", "f"].includes(recovery ?? "") || !/^\d{5,}$/.test(version ?? ""))
    throw new LabError(
      `The database's pod ${name} does not answer: ${lastLine(stderr)}. Nothing was changed.`,
    );
  if (recovery === "t")
    throw refusal(
      `The pod ${name} is a replica of another pod, which takes writes. Set k3s-lab:database.primary to that pod's number. Nothing was changed.`,
    );
  const tables = rest.map((line) => {
    const [table = "", rows, newest] = line.split("|");
    return { name: table, rows: Number(rows), ...(newest ? { newest } : {}) };
  });
  return { major: Math.floor(Number(version) / 10_000), tables };
}

/** A pod's messages, without kubectl's own about the exit code. */
const linesOf = (stderr: string): string[] =>
  stderr
    .trim()
    .split("\n")
    .filter((line) => !/^command terminated with exit code/.test(line));

const lastLine = (stderr: string): string => linesOf(stderr).at(-1) || "it gave no reason";

/** Makes and verifies a backup in the pod, then sends its checksum and the backup. */
const dumping = `set -e
umask 077
folder=$(mktemp -d /tmp/backup.XXXXXX)
trap 'rm -rf "$folder"' EXIT
KEEP=1 postgres-entry dump "$folder"
cat "$folder"/*.sha256 >&2
cat "$folder"/*.dump`;

/** A backup that was made. */
interface Made {
  readonly file: string;
  readonly sha256: string;
  readonly bytes: number;
  readonly tables: readonly TableFacts[];
}

/**
 * Writes a backup of a database, consistent while writes go on.
 * @throws LabError that says what went wrong; nothing is written then.
 */
export async function backUp(database: DatabasePod, file: string): Promise<Made> {
  // Reports an existing file before querying the database.
  const written = await writeBackup(resolve(file), async (temporary) => {
    await askDatabase(database);
    const { exitCode, stderr } = await database.run(["sh", "-c", dumping], { outputFile: temporary });
    const sha256 = /^([0-9a-f]{64}) {2}\S+$/m.exec(stderr)?.[1];
    if (exitCode !== 0 || sha256 === undefined)
      throw new LabError(`The backup failed: ${lastLine(stderr)}. Nothing was written.`);
    return sha256;
  });
  const { tables } = await askDatabase(database).catch(() => ({ tables: [] }));
  return { file, ...written, tables };
}

/** Receives a backup, and restores it only if the transfer is complete. The last line reports the result. */
const restoring = (sha256: string, force: boolean): string => `umask 077
file=$(mktemp /tmp/restore.XXXXXX)
trap 'rm -f "$file"' EXIT
cat >"$file"
code=1
if [ "$(sha256sum "$file" | cut -d ' ' -f 1)" = ${sha256} ]; then
  code=0
  postgres-entry restore${force ? " --force" : ""} <"$file" || code=$?
else
  echo 'the backup was damaged in transit: nothing was changed' >&2
fi
echo "ended $code"`;

/** A restored backup. */
interface Restored extends Pick<BackupFile, "file" | "sha256" | "bytes"> {
  /** What the database holds now. */
  readonly tables: readonly TableFacts[];
  /** What it held before, if anything. */
  readonly replaced: readonly TableFacts[];
}

/**
 * Replaces a database with a backup: all of it or nothing.
 * @param yes whether existing rows may be deleted.
 * @throws LabError with the problem and whether anything was changed; with exit code 3 if there are rows.
 */
export async function restore(database: DatabasePod, backup: BackupFile, yes: boolean): Promise<Restored> {
  const before = await askDatabase(database);
  const needed = Math.max(majorOf(backup.server), majorOf(backup.program));
  if (needed > before.major)
    throw refusal(
      `The backup "${backup.file}" was made by PostgreSQL ${needed}, and the database runs PostgreSQL ${before.major}, which may not be able to read it. Nothing was changed.`,
    );
  const replaced = before.tables.filter(({ rows }) => rows > 0);
  if (replaced.length > 0 && !yes) throw wouldReplace(replaced, backup);
  const { stdout, stderr } = await database.run(["sh", "-c", restoring(backup.sha256, yes)], {
    inputFile: backup.file,
  });
  const ended = /^ended (\d+)$/m.exec(stdout)?.[1];
  if (ended === undefined)
    throw new LabError(
      `The connection to the database's pod ${database.name} was lost: ${lastLine(stderr)}. It is unknown whether the backup was restored: check the data, or run the same command again.`,
    );
  if (ended !== "0") throw new LabError(`The backup was not restored: ${reasonOf(stderr)}`);
  // It is restored, even if this query fails.
  const { tables } = await askDatabase(database).catch(() => ({ tables: [] }));
  const { file, sha256, bytes } = backup;
  return { file, sha256, bytes, tables, replaced };
}

/** The entrypoint's message, which also says what was changed. */
const reasonOf = (stderr: string): string =>
  linesOf(stderr)
    .slice(-3)
    .map((line) => line.replace(/^postgres-entry: /, ""))
    .join("; ");

/** A table for people, such as: entries: 3 rows, the newest from 2026-11-30T01:00:00Z. */
export const inWords = ({ name, rows, newest }: TableFacts): string =>
  `${name}: ${rows} ${rows === 1 ? "row" : "rows"}${newest ? `, the newest from ${newest}` : ""}`;

const wouldReplace = (tables: readonly TableFacts[], { file, at }: BackupFile): LabError => {
  const newer = tables.some(({ newest }) => newest !== undefined && newest > at);
  return new LabError(
    `The database has rows, which the backup would replace (${tables.map(inWords).join("; ")}). The backup "${file}" is from ${at}${newer ? ", and the database has newer rows" : ""}. Nothing was changed. To replace them, run the same command with --yes; to keep a copy, run \`lab backup\` first.`,
    { exitCode: 3 },
  );
};
