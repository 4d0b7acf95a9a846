import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { mkdir, mkdtemp, readdir, readFile, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, afterEach, beforeEach, describe, it } from "node:test";
import { refusal } from "../../scripts/backup/fake-backup.ts";
import { readBackup } from "../../scripts/backup/file.ts";
import { backUp, restore } from "../../scripts/backup/index.ts";
import type { DatabasePod } from "../../stacks/observe/database-pod.ts";
import { type PostgresPod, PostgresPods } from "./postgres-pods.ts";

const made = await PostgresPods.prepare();
const skip = typeof made === "string" ? made : false;
const pods = made as PostgresPods;

const table = `create table entries (id bigint generated always as identity primary key,
  name text not null, text text not null, at timestamptz not null default now())`;
const count = (pod: PostgresPod) => pod.sql("select count(*), coalesce(max(id), 0) from entries");
const asLab = (pod: PostgresPod): DatabasePod => ({
  name: pod.name,
  run: (command, streams) => pod.run(command, { ...streams }),
});

describe("backups of the guest book's database", { skip }, () => {
  let folder = "";
  let up: PostgresPod[] = [];
  after(() => pods.end());
  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), "backup-"));
  });
  afterEach(async () => {
    for (const pod of up) await pods.remove(pod);
    up = [];
    await rm(folder, { recursive: true });
  });
  const start = async (name: string) => {
    const pod = await pods.pod(name);
    up.push(pod);
    await pod.startReady();
    return pod;
  };
  const guestBook = async () => {
    const pod = await start("db-0");
    await pod.sql(table);
    await pod.sql("insert into entries (name, text) values ('Ada', 'one'), ('Bea', 'two')");
    return pod;
  };

  it("a backup during writes contains all earlier rows and restores into a new database", async () => {
    const db = await guestBook();
    // Pairs are written in one transaction each: half a pair would be what never was.
    const insert = "insert into entries (name, text) values ('x', 'a'), ('x', 'b')";
    let writing = true;
    const writer = (async () => {
      while (writing) await db.sql(insert);
    })();
    const file = join(folder, "book.dump");
    await db.until(async () => Number((await count(db)).split("|")[0]) > 4, "is written to");
    const written = await backUp(asLab(db), file);
    writing = false;
    await writer;
    const { mode, size } = await stat(file);
    assert.deepEqual([mode & 0o777, size], [0o600, written.bytes]);
    assert.equal((await stat(`${file}.sha256`)).mode & 0o777, 0o600);
    assert.equal(await readFile(`${file}.sha256`, "utf8"), `${written.sha256}  book.dump\n`);
    assert.deepEqual((await readdir(folder)).sort(), ["book.dump", "book.dump.sha256"]);
    assert.deepEqual(await readdir(db.path("/tmp")), [".pgpass", "initdb.log"], "nothing stays in the pod");

    // Another cluster: nothing is left of the database.
    await db.kill();
    await rm(db.path("/var/lib/postgresql"), { recursive: true });
    await mkdir(db.path("/var/lib/postgresql"));
    await db.startReady();
    const backup = await readBackup(file, "guestbook");
    assert.ok(Math.abs(Date.parse(backup.at) - Date.now()) < 60_000, backup.at);
    const { tables, replaced } = await restore(asLab(db), backup, false);
    assert.deepEqual(replaced, []);
    const rows = tables[0]?.rows ?? 0;
    assert.ok(rows > 4 && rows % 2 === 0, `${rows} rows`);
    // Numbers go on after those that are there.
    assert.equal(await db.sql("insert into entries (name, text) values ('n', 'n') returning id > 4"), "t");
  });

  it("existing rows are reported and kept, and replaced only with --yes", async () => {
    const db = await guestBook();
    const file = join(folder, "book.dump");
    await backUp(asLab(db), file);
    const backup = await readBackup(file, "guestbook");
    await db.sql("insert into entries (name, text, at) values ('Cid', 'late', now() + interval '1 hour')");
    assert.match(
      await refusal(restore(asLab(db), backup, false)),
      /^3 The database has rows.*\(entries: 3 rows, the newest from 20.*Z\).* is from 20.*Z, and the database has newer rows\. Nothing was changed.*--yes/,
    );
    assert.equal((await count(db)).split("|")[0], "3");
    const done = await restore(asLab(db), backup, true);
    assert.deepEqual([done.replaced[0]?.rows, done.tables[0]?.rows], [3, 2]);
    assert.equal(await count(db), "2|2");
  });

  it("refuses a damaged or truncated backup, one of another app or of a newer PostgreSQL, each with its own message", async () => {
    const db = await guestBook();
    const file = join(folder, "book.dump");
    await backUp(asLab(db), file);
    const good = await readFile(file);
    const sums = await readFile(`${file}.sha256`, "utf8");
    const place = async (bytes: Uint8Array, sum = createHash("sha256").update(bytes).digest("hex")) => {
      await writeFile(file, bytes);
      await writeFile(`${file}.sha256`, `${sum}  book.dump\n`);
    };
    const replaced = (from: string, to: string) => {
      const bytes = Buffer.from(good);
      bytes.write(to, bytes.indexOf(from), "latin1");
      return bytes;
    };
    const read = () => refusal(readBackup(file, "guestbook"));
    await writeFile(file, good.subarray(0, -100));
    assert.match(await read(), /^2 .*damaged or incomplete.*Nothing was changed/);
    const damaged = Buffer.from(good);
    damaged[good.length - 50] = (good[good.length - 50] ?? 0) ^ 1;
    await writeFile(file, damaged);
    assert.match(await read(), /^2 .*damaged or incomplete/);
    await place(replaced("guestbook", "otherbook"));
    assert.match(await read(), /^2 .*belongs to another application: its database is "otherbook"/);
    await place(Buffer.from("a text\n"));
    assert.match(await read(), /^2 .*is not a backup/);
    await place(good);
    await rm(`${file}.sha256`);
    assert.match(await read(), /^2 .*book\.dump\.sha256 is missing.*sha256sum book\.dump/);
    await place(replaced("15.", "99."));
    const newer = await readBackup(file, "guestbook");
    assert.match(
      await refusal(restore(asLab(db), newer, true)),
      /^2 .*was made by PostgreSQL 99, and the database runs PostgreSQL 15/,
    );
    // What nobody here sees is wrong is seen in the pod: its data end too early.
    await place(good.subarray(0, -100));
    const cut = await readBackup(file, "guestbook");
    assert.match(await refusal(restore(asLab(db), cut, true)), /^1 .*nothing was changed/);
    // Another file by the time that it is sent.
    await place(good);
    const backup = await readBackup(file, "guestbook");
    await writeFile(file, damaged);
    assert.match(await refusal(restore(asLab(db), backup, true)), /^1 .*was damaged in transit/);
    assert.equal(await count(db), "2|2");
    assert.deepEqual(await readdir(db.path("/tmp")), [".pgpass", "initdb.log"]);
    assert.match(sums, /^[0-9a-f]{64} {2}book\.dump\n$/);
  });

  it("a database that is down, or a replica, neither makes nor restores backups", async () => {
    const db = await guestBook();
    const replica = await start("db-1");
    const file = join(folder, "book.dump");
    assert.match(await refusal(backUp(asLab(replica), file)), /^2 The pod db-1 is a replica of another pod/);
    await backUp(asLab(db), file);
    const backup = await readBackup(file, "guestbook");
    assert.match(
      await refusal(restore(asLab(replica), backup, true)),
      /^2 The pod db-1 is a replica of another pod/,
    );
    await db.stop();
    assert.match(await refusal(backUp(asLab(db), join(folder, "late.dump"))), /^1 .*db-0 does not answer/);
    assert.match(
      await refusal(restore(asLab(db), backup, true)),
      /^1 .*does not answer.*Nothing was changed/,
    );
    assert.deepEqual((await readdir(folder)).sort(), ["book.dump", "book.dump.sha256"]);
  });
});
