import assert from "node:assert/strict";
import { cp, mkdir, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { after, describe, it } from "node:test";
import { setTimeout as pause } from "node:timers/promises";
import { type PostgresPod, PostgresPods } from "./postgres-pods.ts";

const made = await PostgresPods.prepare();
const skip = typeof made === "string" ? made : false;
const all = made as PostgresPods;

const claim = "/var/lib/postgresql";
const data = (pod: PostgresPod) => join(pod.path(claim), "data");
const wipe = async (pod: PostgresPod) => {
  await rm(pod.path(claim), { recursive: true });
  await mkdir(pod.path(claim));
};
const rows = (pod: PostgresPod) => pod.sql("select string_agg(text, ' ' order by text) from notes");
const note = (pod: PostgresPod, text: string) => pod.sql(`insert into notes values ('${text}')`);

/** What one test has: pods of its own, of which the first makes the database and the second copies it. */
function own(pods: PostgresPods) {
  const pod = (name: string) => pods.pod(name);
  const primary = async () => {
    const one = await pod("db-0");
    await one.startReady();
    await one.sql("create table notes (text text)");
    await note(one, "a");
    return one;
  };
  const pair = async () => {
    const [first, second] = [await primary(), await pod("db-1")];
    await second.startReady();
    return [first, second] as const;
  };
  return { pods, pod, primary, pair };
}

// Most of the time each waits for its database.
describe("the database's entrypoint", { skip, concurrency: 4 }, () => {
  after(() => all.end());
  const test = (name: string, run: (has: ReturnType<typeof own>) => Promise<void>) =>
    it(name, async () => {
      const pods = await all.apart();
      await run(own(pods)).finally(() => pods.end());
    });

  test("creates the database, authenticates by password, and keeps the data over a restart", async ({
    primary,
  }) => {
    const db = await primary();
    assert.equal(
      await db.sql("select current_user, rolsuper from pg_roles where rolname = current_user"),
      "guestbook|f",
    );
    await assert.rejects(db.sql("select 1", { password: "wrong" }), /password authentication failed/);
    await assert.rejects(
      db.sql("select 1", { user: "postgres", database: "postgres" }),
      /rejects connection/,
    );
    assert.equal(await db.admin("show server_encoding"), "UTF8");
    const open = db.sql("select pg_sleep(60)").catch((error: Error) => error.message);
    const sleeping = "select count(*) from pg_stat_activity where query like 'select pg_sleep%'";
    await db.until(async () => (await db.admin(sleeping)) === "1", "is asked");
    assert.equal(await db.stop(), 0, db.said);
    assert.match(String(await open), /terminating connection/, "it does not wait for who is connected");
    assert.doesNotMatch(db.said, /secret|copying\b/);
    await db.startReady();
    assert.equal(await rows(db), "a");
  });

  test("starts over if killed while creating the database", async ({ pod }) => {
    const db = await pod("db-0");
    await db.start();
    const folder = async () => await readdir(join(db.path(claim), "data.init")).catch(() => []);
    await db.until(async () => (await folder()).length > 3, "makes the database");
    await db.kill();
    assert.ok(!(await readdir(db.path(claim))).includes("data"));
    await db.startReady();
    assert.deepEqual((await readdir(db.path(claim))).sort(), ["data", "lock"]);
  });

  test("creates the roles if killed before they existed", async ({ primary }) => {
    const db = await primary();
    await db.sql("drop table notes");
    for (const text of [
      "drop database guestbook",
      "drop role guestbook",
      "drop owned by replicator",
      "drop role replicator",
    ])
      await db.admin(text);
    await db.kill();
    await db.startReady();
    assert.equal(await db.sql("select 1"), "1");
  });

  test("recovers after being killed, despite its own stale lock", async ({ primary }) => {
    const db = await primary();
    await db.kill();
    assert.ok((await readdir(data(db))).includes("postmaster.pid"));
    // In a new container the number may be any other process's.
    await writeFile(join(data(db), "postmaster.pid"), `${process.pid}\n`);
    await db.startReady();
    assert.equal(await rows(db), "a");
  });

  test("waits while another container still uses the volume", async ({ primary }) => {
    const db = await primary();
    const again =
      "postgres-entry server 2>/tmp/said & until [ -s /tmp/said ]; do sleep 0.1; done; kill $!; wait";
    assert.equal((await db.exec(["sh", "-c", again])).exitCode, 0);
    // The shell may say of what it waited for that it was ended.
    assert.match(
      await readFile(db.path("/tmp/said"), "utf8"),
      /^postgres-entry: another container still uses this volume: [^\n]*\n(Terminated\n)?$/,
    );
    assert.equal(await rows(db), "a");
  });

  test("a replica follows, refuses writes, and catches up after either restarts", async ({ pair }) => {
    const [first, second] = await pair();
    assert.equal(await rows(second), "a");
    await assert.rejects(note(second, "x"), /read-only transaction/);
    await second.stop();
    await note(first, "b");
    await second.startReady();
    assert.equal(await rows(second), "a b");
    await first.kill();
    assert.ok(await second.isReady(), "it serves reads for a while without its primary");
    assert.equal(await rows(second), "a b");
    await first.startReady();
    await note(first, "c");
    await second.until(async () => (await rows(second)) === "a b c", "follows again");
    assert.equal(await first.admin("select count(*), bool_and(active) from pg_replication_slots"), "1|t");
  });

  test("a replica killed during its copy is copied again", async ({ pod, primary }) => {
    const [first, second] = [await primary(), await pod("db-1")];
    await first.sql("create table filler as select repeat('x', 1000) from generate_series(1, 60000)");
    await second.start();
    const parts = async () => await readdir(join(second.path(claim), "data.new")).catch(() => []);
    await second.until(async () => (await parts()).length > 0, "copies");
    assert.equal((await second.exec(["postgres-entry", "alive"])).exitCode, 0, "who copies is not dead");
    await second.kill();
    await second.startReady();
    assert.equal(await rows(second), "a");
    assert.deepEqual((await readdir(second.path(claim))).sort(), ["data", "lock"]);
  });

  for (const [what, lose] of [
    ["nobody kept", ["select pg_drop_replication_slot('db_1')"]],
    ["was too much to keep", ["alter system set max_slot_wal_keep_size = '1MB'", "select pg_reload_conf()"]],
  ] as const)
    test(`a replica that lacks what ${what} is copied again, and the primary is unchanged`, async ({
      pair,
    }) => {
      const [first, second] = await pair();
      await second.stop();
      for (const command of lose) await first.admin(command);
      for (let segment = 0; segment < 3; segment++)
        await first.admin("create table if not exists pg_temp.t (); select pg_switch_wal()");
      await first.admin("checkpoint");
      await note(first, "b");
      await second.start();
      await second.until(() => second.said.includes("no longer has the log that this copy needs"), "notices");
      await second.until(async () => (await second.isReady()) && (await rows(second)) === "a b", "follows");
      assert.equal(await rows(first), "a b");
      assert.equal(await first.admin("select count(*), bool_and(active) from pg_replication_slots"), "1|t");
      assert.deepEqual((await readdir(second.path(claim))).sort(), ["data", "lock"]);
    });

  test("a replica of another database is kept, whatever its primary now has", async ({ pair, pods }) => {
    const [first, second] = await pair();
    await Promise.all([first.stop(), second.stop()]);
    await wipe(first);
    pods.hosts.delete("db-1");
    await first.startReady();
    pods.hosts.set("db-1", second.address);
    await second.start();
    assert.equal(await second.ended(), 1);
    assert.match(second.said, /db-0 has a different database .* This copy is kept/);
    assert.match(
      second.said,
      /To keep this copy, delete the claim and the pod of db-0, then promote this pod/,
    );
    assert.ok((await readdir(data(second))).includes("standby.signal"));

    await first.kill();
    await wipe(first);
    await first.start();
    await first.until(() => first.said.includes("db-1 does not answer"), "waits");
    await second.start();
    await first.until(() => first.said.includes("db-1 holds a copy"), "meets the copy");
    const { exitCode, stderr } = await second.exec(["postgres-entry", "promote"]);
    assert.equal(exitCode, 0, stderr);
    await first.until(() => first.isReady(), "follows");
    assert.equal(await rows(first), "a");
  });

  test("an empty pod 0 creates no database while another pod holds a copy; after promotion it follows that", async ({
    pair,
  }) => {
    const [first, second] = await pair();
    await first.kill();
    const before = await cp(first.path(claim), first.path("/old"), { recursive: true });
    assert.equal(before, undefined);
    await wipe(first);
    await first.start();
    await first.until(
      () => first.said.includes("run: kubectl exec db-1 -- postgres-entry promote"),
      "says what to do",
    );
    assert.ok(!(await readdir(first.path(claim))).includes("data.init"));
    assert.equal((await second.exec(["postgres-entry", "promote"])).exitCode, 0);
    await note(second, "b");
    await first.until(() => first.isReady(), "follows");
    assert.equal(await rows(first), "a b");
    await assert.rejects(note(first, "x"), /read-only transaction/);

    await second.stop();
    await second.startReady();
    await note(second, "c");
    await first.until(async () => (await rows(first)) === "a b c", "follows what stays promoted");

    // The node comes back with what pod 0 had.
    await first.stop();
    await wipe(first);
    await cp(first.path("/old"), first.path(claim), { recursive: true });
    await first.start();
    assert.equal(await first.ended(), 1);
    assert.match(first.said, /db-1 was promoted and takes writes now/);
    assert.ok((await readdir(data(first))).includes("PG_VERSION"), "it is kept");
  });

  test("an existing database is not recreated on an empty volume unless asked", async ({ primary }) => {
    const db = await primary();
    await db.noteMade(1);
    assert.equal((await db.exec(["postgres-entry", "initialise"])).exitCode, 1, "there is one");

    await db.kill();
    await wipe(db);
    await db.start();
    await db.until(
      () => db.said.includes("kubectl exec db-0 -- postgres-entry initialise"),
      "says what to do",
    );
    assert.match(
      db.said,
      /this volume is empty, although the database was created before\. Nothing is created here/,
    );
    const { exitCode, stderr } = await db.exec(["postgres-entry", "ready"]);
    assert.equal(exitCode, 1);
    assert.match(stderr, /this volume is empty/);
    assert.equal((await db.exec(["postgres-entry", "alive"])).exitCode, 0, "it is not restarted for that");
    assert.deepEqual(await readdir(db.path(claim)), ["lock"]);
    assert.equal((await db.exec(["postgres-entry", "initialise"])).exitCode, 0);
    await db.until(() => db.isReady(), "is ready");
    await assert.rejects(rows(db), /"notes" does not exist/);
  });

  test("an empty pod 0 of two lets Kubernetes start the other; if that is empty too, only force creates a database", async ({
    pod,
  }) => {
    const first = await pod("db-0");
    await first.noteMade(2);
    await first.start();
    // Kubernetes makes pod 1 once pod 0 is ready.
    await first.until(() => first.isReady(), "is ready for the next pod");
    assert.deepEqual(await readdir(first.path(claim)), ["lock"]);
    // A pod of these learns of a name when it starts.
    assert.equal(await first.stop(), 143);
    const second = await pod("db-1");
    await second.noteMade(2);
    await Promise.all([first.start(), second.start()]);
    await first.until(() => first.said.includes("postgres-entry initialise --force"), "says what to do");
    assert.equal(await first.isReady(), false, "it takes no requests");
    const refused = await first.exec(["postgres-entry", "initialise"]);
    assert.match(
      `${refused.exitCode} ${refused.stderr}`,
      /^1 .*db-1 holds or may hold a copy of the database/,
    );
    assert.equal((await first.exec(["postgres-entry", "initialise", "--force"])).exitCode, 0);
    await first.until(() => first.isReady(), "is made");
    await second.until(() => second.isReady(), "copies it");
  });

  test("a pod whose peers do not answer creates no database", async ({ pod, pods }) => {
    const db = await pod("db-0");
    pods.hosts.set("db-1", db.address.replace(/\d+$/, "250"));
    await db.start();
    await db.until(() => db.said.includes("db-1 does not answer and may hold a copy"), "says so");
    pods.hosts.delete("db-1");
    assert.equal(await db.stop(), 143);
    await db.startReady();
  });

  test("resolves fully qualified names through the cluster's DNS, from pod 0's, for any number of pods", async ({
    pod,
    pods,
  }) => {
    pods.resolvConf =
      "search my-app.svc.cluster.local svc.cluster.local cluster.local\nnameserver 127.0.0.1\n";
    const [first, second] = [await pod("db-0"), await pod("db-3")];
    for (const { name, address } of [first, second])
      pods.hosts.set(`${name}.db-pods.my-app.svc.cluster.local.`, address);
    const env = { PRIMARY_HOST: "db-0.db-pods", PEER_HOSTS: "" };
    // The other one is there and says nothing.
    await first.start(env);
    await first.until(() => first.said.includes("db-3 does not answer"), "asks db-3");
    assert.equal(await first.stop(), 143);
    pods.hosts.delete("db-3.db-pods.my-app.svc.cluster.local.");
    await first.startReady(env);
    await second.startReady(env);
  });

  test("refuses a promotion while another pod is primary, unless forced", async ({ pair }) => {
    const [first, second] = await pair();
    const refused = await second.exec(["postgres-entry", "promote"]);
    assert.equal(refused.exitCode, 1);
    assert.match(refused.stderr, /db-0 takes writes/);
    await first.stop();
    assert.equal((await second.exec(["postgres-entry", "promote"])).exitCode, 0);
    assert.equal((await second.exec(["postgres-entry", "promote"])).exitCode, 0, "twice is once");
    assert.ok(await second.isReady());
  });

  test("applies changed passwords while running, and keeps connections", async ({ pair }) => {
    const [first, second] = await pair();
    const open = first.sql("select pg_sleep(8), 'still here'");
    const sleeping = "select count(*) from pg_stat_activity where query like 'select pg_sleep%'";
    await first.until(async () => (await first.admin(sleeping)) === "1", "is asked");
    for (const each of [first, second]) await each.setPasswords("it's \\:new", "other:\\");
    const entered = async () => await first.sql("select 1", { password: "it's \\:new" }).catch(() => "");
    await first.until(async () => (await entered()) === "1", "lets the new password in");
    await assert.rejects(first.sql("select 1"), /password authentication failed/);
    assert.match(await open, /still here/);
    await second.stop();
    await second.startReady();
    assert.doesNotMatch(first.said + second.said, /it's|:new|other:/);
  });

  test("applies passwords that changed while it was stopped", async ({ primary }) => {
    const db = await primary();
    await db.stop();
    await db.setPasswords("changed", "copying");
    await db.startReady();
    assert.equal(await db.sql("select text from notes", { password: "changed" }), "a");
  });

  test("writes restorable backups and keeps the newest", async ({ primary }) => {
    const db = await primary();
    const env = { DATABASE_HOST: db.address, KEEP: "2" };
    const folder = db.path("/tmp");
    for (const name of ["20010101T000000Z", "20020101T000000Z"])
      await writeFile(join(folder, `guestbook-${name}.dump`), "");
    await writeFile(join(folder, "guestbook-mine.dump"), "");
    const dump = await db.exec(["postgres-entry", "dump", "/tmp"], env);
    assert.equal(dump.exitCode, 0, dump.stderr);
    const files = (await readdir(folder)).filter((name) => name.startsWith("guestbook-")).sort();
    const [old, written, sum, mine] = files;
    assert.deepEqual(
      [old, sum, mine],
      ["guestbook-20020101T000000Z.dump", `${written}.sha256`, "guestbook-mine.dump"],
    );
    assert.match(
      await readFile(join(folder, sum ?? ""), "utf8"),
      new RegExp(`^[0-9a-f]{64} {2}${written}\n$`),
    );
    await db.sql("drop table notes");
    const restore = [
      "pg_restore",
      "-h",
      db.address,
      "-U",
      "guestbook",
      "-d",
      "guestbook",
      "--exit-on-error",
      `/tmp/${written}`,
    ];
    const restored = await db.exec(restore, { PGPASSWORD: "secret" });
    assert.equal(restored.exitCode, 0, restored.stderr);
    assert.equal(await rows(db), "a");
    assert.match((await db.exec(["postgres-entry", "dump"], env)).stdout, /^PGDMP/);

    assert.match(
      (await db.exec(["postgres-entry", "dump"])).stdout,
      /^PGDMP/,
      "in the database's own pod it needs no host",
    );

    await db.stop();
    const failed = await db.exec(["postgres-entry", "dump", "/tmp"], env);
    assert.equal(failed.exitCode, 1);
    const left = (await readdir(folder)).filter((name) => name.startsWith("guestbook-")).sort();
    assert.deepEqual(left, files, "a backup that failed takes none away");
  });

  test("keeps the backup just made, even if earlier ones have a wrong time", async ({ primary }) => {
    const db = await primary();
    const folder = db.path("/tmp");
    const dumps = async () => (await readdir(folder)).filter((name) => name.endsWith(".dump")).sort();
    const ahead = ["guestbook-29990101T000000Z.dump", "guestbook-29990102T000000Z.dump"];
    for (const name of ahead) await writeFile(join(folder, name), "");
    for (const keep of [2, 1]) {
      const { exitCode, stderr } = await db.exec(["postgres-entry", "dump", "/tmp"], { KEEP: String(keep) });
      assert.equal(exitCode, 0, stderr);
      const [, written = ""] = /wrote (\S+)/.exec(stderr) ?? [];
      assert.deepEqual(await dumps(), [written, ...ahead.slice(3 - keep)]);
    }
  });

  test("two concurrent backups both succeed", async ({ primary }) => {
    const db = await primary();
    await db.sql("insert into notes select repeat(md5(n::text), 20) from generate_series(1, 20000) n");
    const dump = () => db.exec(["postgres-entry", "dump", "/tmp"]);
    for (const { exitCode, stderr } of await Promise.all([dump(), dump(), dump()]))
      assert.equal(exitCode, 0, stderr);
    const files = (await readdir(db.path("/tmp"))).filter((name) => name.includes(".partial"));
    assert.deepEqual(files, []);
  });

  test("a backup waits for a slow database up to its limit", async ({ primary }) => {
    const db = await primary();
    const late = { DATABASE_HOST: db.address, KEEP: "2", PATIENCE: "30" };
    await db.stop();
    const dump = db.exec(["postgres-entry", "dump", "/tmp"], late);
    await pause(3000);
    await db.startReady();
    const { exitCode, stderr } = await dump;
    assert.equal(exitCode, 0, stderr);
  });

  test("restores a backup completely or not at all, and replaces rows only if told to", async ({ pair }) => {
    const [first, second] = await pair();
    await first.exec(["sh", "-c", "postgres-entry dump >/tmp/backup"]);
    const backup = await readFile(join(first.path("/tmp"), "backup"));
    await note(first, "b");
    const restore = async (pod: PostgresPod, input: Uint8Array, ...more: string[]) => {
      const { exitCode, stderr } = await pod.exec(["postgres-entry", "restore", ...more], {}, input);
      return `${exitCode} ${stderr}`;
    };
    assert.match(
      await restore(first, backup),
      /^1 .*has rows \(notes\), which the backup would replace\. Nothing was changed/,
    );
    assert.match(await restore(first, backup.subarray(0, 40), "--force"), /^1 .*not a readable backup/s);
    // Its list can be read, its data not: nothing of it may stay.
    assert.match(await restore(first, backup.subarray(0, -60), "--force"), /^1 .*nothing was changed/s);
    assert.match(await restore(second, backup, "--force"), /^1 .*restore in the pod that takes writes/);
    assert.equal(await rows(first), "a b");
    assert.match(await restore(first, backup, "--force"), /^0 .*the backup was restored/);
    assert.equal(await rows(first), "a");
    await second.until(async () => (await rows(second)) === "a", "has it too");
    assert.equal(await first.sql("select tableowner from pg_tables where tablename = 'notes'"), "guestbook");
    await first.sql("drop table notes");
    assert.match(await restore(first, backup), /^0 /);
    assert.equal(await rows(first), "a");
    assert.ok(!(await readdir(first.path("/tmp"))).some((name) => name.startsWith("restore")));
  });

  test("a row written during a restore is not replaced unasked", async ({ primary }) => {
    const db = await primary();
    await db.exec(["sh", "-c", "postgres-entry dump >/tmp/backup"]);
    const backup = await readFile(join(db.path("/tmp"), "backup"));
    await db.sql("delete from notes");
    // Nobody sees the row until it is committed.
    const writing = db.sql("begin; insert into notes values ('late'); select pg_sleep(3); commit");
    const open = "select count(*) from pg_stat_activity where wait_event = 'PgSleep'";
    await db.until(async () => (await db.admin(open)) === "1", "writes");
    const { exitCode, stderr } = await db.exec(["postgres-entry", "restore"], {}, backup);
    await writing;
    assert.match(`${exitCode} ${stderr}`, /^1 .*nothing was changed/s);
    assert.equal(await rows(db), "late");
  });

  test("refuses unknown actions, and PostgreSQL's own superuser name", async ({ pod }) => {
    const db = await pod("db-0");
    assert.equal((await db.exec(["postgres-entry", "upgrade"])).exitCode, 2);
    assert.equal((await db.exec(["postgres-entry", "server"], { DATABASE_USER: "postgres" })).exitCode, 1);
  });
});
