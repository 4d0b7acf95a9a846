import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { chmod, mkdir, mkdtemp, readdir, readFile, rm, stat, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, it } from "node:test";
import {
  type DatabasePod,
  databaseConfig,
  type Ended,
  type Streams,
} from "../../stacks/observe/database-pod.ts";
import { header, refusal } from "./fake-backup.ts";
import { readBackup } from "./file.ts";
import { backUp, restore } from "./index.ts";

const sha256 = (bytes: Uint8Array) => createHash("sha256").update(bytes).digest("hex");
const content = Buffer.concat([header(), Buffer.from("the data")]);

interface Fake {
  /** What psql answers. */
  readonly facts?: string;
  readonly dump?: (file: string) => Promise<Ended>;
  readonly restored?: Ended;
}

/** A pod that answers so, and what it was asked to run. */
function fake({
  facts = "f|150020\nentries|0|",
  dump,
  restored = { exitCode: 0, stdout: "ended 0\n", stderr: "" },
}: Fake = {}) {
  const scripts: string[] = [];
  const run = async (command: readonly string[], { outputFile }: Streams = {}): Promise<Ended> => {
    if (command[0] === "psql") return { exitCode: 0, stdout: facts, stderr: "" };
    scripts.push(command.at(-1) ?? "");
    if (outputFile === undefined) return restored;
    if (dump) return await dump(outputFile);
    await writeFile(outputFile, content);
    return { exitCode: 0, stdout: "", stderr: `postgres-entry: wrote x\n${sha256(content)}  x.dump\n` };
  };
  const database: DatabasePod = { name: "db-0", run };
  return { database, scripts };
}

describe("backups and their files", () => {
  let folder = "";
  let file = "";
  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), "backup-"));
    file = join(folder, "book.dump");
  });
  afterEach(async () => await rm(folder, { recursive: true }));
  const place = async (bytes: Uint8Array = content, sum = sha256(bytes)) => {
    await writeFile(file, bytes);
    await writeFile(`${file}.sha256`, `${sum}  book.dump\n`);
    return await readBackup(file, "guestbook");
  };

  it("a backup and its checksum are written, readable by the owner only", async () => {
    const made = await backUp(fake({ facts: "f|150020\nentries|2|2026-11-30T01:00:00Z" }).database, file);
    assert.deepEqual(made, {
      file,
      sha256: sha256(content),
      bytes: content.length,
      tables: [{ name: "entries", rows: 2, newest: "2026-11-30T01:00:00Z" }],
    });
    for (const one of [file, `${file}.sha256`]) assert.equal((await stat(one)).mode & 0o777, 0o600);
    assert.equal((await readBackup(file, "guestbook")).server, "15.20 (Debian)");
  });

  it("existing files are kept: a backup, its checksum, a dangling link", async () => {
    const { database, scripts } = fake();
    await writeFile(file, "mine");
    assert.match(
      await refusal(backUp(database, file)),
      /^2 .*book\.dump" already exists and was not overwritten/,
    );
    await rm(file);
    await writeFile(`${file}.sha256`, "mine");
    assert.match(await refusal(backUp(database, file)), /^2 .*book\.dump\.sha256" already exists/);
    await rm(`${file}.sha256`);
    await symlink("nowhere", file);
    assert.match(await refusal(backUp(database, file)), /^2 .*already exists/);
    assert.deepEqual(scripts, [], "the database was not asked");
    assert.deepEqual(await readdir(folder), ["book.dump"]);
    await rm(file);
    // It comes while the backup is made.
    const dump = async (temporary: string) => {
      await writeFile(file, "mine");
      await writeFile(temporary, content);
      return { exitCode: 0, stdout: "", stderr: `${sha256(content)}  x.dump\n` };
    };
    assert.match(await refusal(backUp(fake({ dump }).database, file)), /^2 .*already exists/);
    assert.equal(await readFile(file, "utf8"), "mine");
    assert.deepEqual(await readdir(folder), ["book.dump"]);
  });

  it("nothing is written if the backup fails, is cut off, or the folder is missing", async () => {
    const ended =
      (exitCode: number | undefined, stderr: string, bytes: Uint8Array) => async (path: string) => {
        await writeFile(path, bytes);
        return { exitCode, stdout: "", stderr };
      };
    const sum = `${sha256(content)}  x.dump\n`;
    const failed = fake({
      dump: ended(
        1,
        "postgres-entry: pg_dump ended with exit code 1\ncommand terminated with exit code 1",
        content,
      ),
    });
    assert.match(
      await refusal(backUp(failed.database, file)),
      /^1 .*pg_dump ended with exit code 1\. Nothing/,
    );
    const cut = fake({ dump: ended(0, sum, content.subarray(0, -3)) });
    assert.match(await refusal(backUp(cut.database, file)), /^1 .*was damaged in transit/);
    const lost = fake({ dump: ended(undefined, `${sum}error: connection reset`, content) });
    assert.match(await refusal(backUp(lost.database, file)), /^1 .*connection reset/);
    assert.deepEqual(await readdir(folder), []);
    assert.match(await refusal(backUp(fake().database, join(folder, "no", "x"))), /^2 .*cannot be written/);
    await writeFile(file, "");
    assert.match(await refusal(backUp(fake().database, join(file, "x"))), /^2 .*cannot be written/);
  });

  it("rejects files that cannot be read", async () => {
    assert.match(await refusal(readBackup(file, "guestbook")), /^2 .*does not exist\. Nothing was changed/);
    await mkdir(file);
    assert.match(await refusal(readBackup(file, "guestbook")), /^2 .*is not a file/);
    await rm(file, { recursive: true });
    await place();
    await writeFile(`${file}.sha256`, "what\n");
    assert.match(await refusal(readBackup(file, "guestbook")), /^2 .*may be damaged.*contains no checksum/);
    if (process.getuid?.() !== 0) {
      await chmod(file, 0);
      assert.match(await refusal(readBackup(file, "guestbook")), /^2 .*cannot be read \(EACCES\)/);
    }
  });

  it("rows are replaced only with --yes; an empty table needs no confirmation", async () => {
    const backup = await place();
    const { database, scripts } = fake({ facts: "f|150020\nentries|1|2026-11-30T00:00:00Z\nother|0|" });
    assert.match(
      await refusal(restore(database, backup, false)),
      /^3 .*\(entries: 1 row, the newest from 2026-11-30T00:00:00Z\)\. The backup ".*" is from 2026-11-30T01:02:03Z\. Nothing/,
    );
    assert.deepEqual(scripts, []);
    await restore(database, backup, true);
    assert.match(scripts[0] ?? "", new RegExp(`${backup.sha256}[^]*postgres-entry restore --force <`));
    const empty = fake();
    await restore(empty.database, backup, false);
    assert.match(empty.scripts[0] ?? "", /postgres-entry restore </);
  });

  it("backups of a newer PostgreSQL or pg_dump are not sent", async () => {
    for (const newer of [header({ server: "16.1" }), header({ program: "17beta1" })]) {
      const { database, scripts } = fake();
      const backup = await place(newer);
      assert.match(
        await refusal(restore(database, backup, true)),
        /^2 .*was made by PostgreSQL 1[67].*runs PostgreSQL 15/,
      );
      assert.deepEqual(scripts, []);
    }
  });

  it("reports a change only if the pod confirmed it", async () => {
    const backup = await place();
    const ended = (stdout: string, stderr: string) =>
      fake({ restored: { exitCode: 1, stdout, stderr } }).database;
    assert.match(
      await refusal(
        restore(ended("ended 1\n", "postgres-entry: it was not: nothing was changed\n"), backup, true),
      ),
      /^1 The backup was not restored: it was not: nothing was changed$/,
    );
    assert.match(
      await refusal(restore(ended("", "error: connection reset"), backup, true)),
      /^1 .*was lost: error: connection reset\. It is unknown whether the backup was restored/,
    );
  });

  it("only the guest book has a database", async () => {
    assert.match(await refusal(databaseConfig("apps")), /^2 The stack "apps" has no database/);
    assert.match(await refusal(databaseConfig("my-app-none")), /^2 .*Pulumi\.my-app-none\.yaml/);
    assert.equal((await databaseConfig("my-app")).namespace, "my-app");
  });
});
