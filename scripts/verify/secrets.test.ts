import assert from "node:assert/strict";
import { copyFile, mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { after, test } from "node:test";
import { execa } from "execa";
import type { PlannedNode } from "../../stacks/model/cluster-plan.ts";
import { runChecks } from "./check.ts";
import { checkSecrets, type SecretRecords, secretRecords } from "./secrets.ts";

const folder = await mkdtemp(join(tmpdir(), "k3s-lab-datastore-"));
after(() => rm(folder, { recursive: true }));

/** What Kubernetes writes: a Secret as it is, or encrypted. */
const plain = Buffer.from(`k8s\0\n\f\n\x02v1\x12\x06Secret${"data/of/registry/secrets/x".repeat(40)}`);
const encrypted = Buffer.concat([Buffer.from("k8s:enc:aescbc:v1:aescbckey:"), Buffer.alloc(900, 0x2f)]);

/** Whether there are records of each kind; a record is in a datastore as often as its page. */
async function find(db: string): Promise<Record<keyof SecretRecords, boolean> | undefined> {
  const { stdout, stderr } = await execa("sh", [join(import.meta.dirname, "datastore.sh"), db]);
  assert.equal(stderr, "");
  if (!stdout) return undefined;
  const { encrypted, readable } = secretRecords.parse(JSON.parse(stdout));
  return { encrypted: encrypted > 0, readable: readable > 0 };
}

/** A database as K3s makes it where there is one server, with all that was written still in its log. */
async function sqlite(
  name: string,
  secrets: readonly Buffer[],
  revisions: (index: number) => readonly [created: number, create: number, previous: number] = (index) => [
    index % 2,
    10 + index,
    2560,
  ],
): Promise<string> {
  const db = join(folder, name);
  await mkdir(db);
  const open = new DatabaseSync(join(db, "live"));
  open.exec(
    `PRAGMA journal_mode = WAL; CREATE TABLE kine (id INTEGER PRIMARY KEY AUTOINCREMENT, name INTEGER, created INTEGER,
     deleted INTEGER, create_revision INTEGER, prev_revision INTEGER, lease INTEGER, value BLOB, old_value BLOB);
     CREATE INDEX kine_name_index ON kine (name)`,
  );
  const put = open.prepare(
    "INSERT INTO kine (name, created, deleted, create_revision, prev_revision, lease, value) VALUES (?, ?, 0, ?, ?, 0, ?)",
  );
  put.run("/registry/configmaps/kube-system/coredns", 1, 0, 0, plain);
  put.run("/registry/secretslikethis/kube-system/other", 1, 0, 0, plain);
  for (const [index, value] of secrets.entries())
    put.run(`/registry/secrets/kube-system/s${index}.node-password.k3s`, ...revisions(index), value);
  await copyFile(join(db, "live"), join(db, "state.db"));
  await copyFile(join(db, "live-wal"), join(db, "state.db-wal"));
  open.close();
  await rm(join(db, "live"));
  return db;
}

test("finds plaintext and encrypted Secrets in SQLite's log, and nothing else", async () => {
  assert.deepEqual(await find(await sqlite("plain", [plain, plain])), { encrypted: false, readable: true });
  assert.deepEqual(await find(await sqlite("encrypted", [encrypted, encrypted])), {
    encrypted: true,
    readable: false,
  });
  assert.deepEqual(await find(await sqlite("both", [plain, encrypted])), { encrypted: true, readable: true });
  assert.deepEqual(await find(await sqlite("none", [])), { encrypted: false, readable: false });
});

test("finds an unchanged Secret's value right after its name", async () => {
  const first = (name: string, value: Buffer) => sqlite(name, [value], () => [1, 0, 0]);
  assert.deepEqual(await find(await first("new", plain)), { encrypted: false, readable: true });
  assert.deepEqual(await find(await first("new-encrypted", encrypted)), { encrypted: true, readable: false });
});

test("finds plaintext and encrypted Secrets in etcd's file", async () => {
  const snap = join(folder, "etcd", "etcd/member/snap");
  await mkdir(snap, { recursive: true });
  // As protocol buffers have it: the key, three revisions, the value.
  const record = (value: Buffer) =>
    Buffer.concat([
      Buffer.from("\n\x2a/registry/secrets/kube-system/k3s-serving\x10"),
      Buffer.from([0xac, 0x02, 0x18, 0xac, 0x02, 0x20, 0x01, 0x2a, 0xa0, 0x07]),
      value,
    ]);
  await writeFile(
    join(snap, "db"),
    Buffer.concat([plain, record(encrypted), record(plain), record(encrypted)]),
  );
  assert.deepEqual(await find(join(folder, "etcd")), { encrypted: true, readable: true });
});

test("without a datastore nothing is reported", async () => {
  assert.equal(await find(join(folder, "agent")), undefined);
});

const server: PlannedNode = { name: "server", role: "server", address: "ssh://server.cluster", args: [] };
const look = async (isEncrypted: boolean, records: SecretRecords | null) => {
  const [check] = await runChecks("cluster", [checkSecrets([server], isEncrypted, async () => records)]);
  return [check?.ok, check?.actual];
};

for (const [what, isEncrypted, records, ok, actual] of [
  ["encrypted, as the flag says", true, { encrypted: 4, readable: 0 }, true, /^encrypted$/],
  ["readable without the flag, which is no fault", false, { encrypted: 0, readable: 4 }, true, /^readable: /],
  ["readable despite the flag", true, { encrypted: 0, readable: 4 }, false, /^readable: /],
  ["partly readable", true, { encrypted: 9, readable: 1 }, false, /^some are encrypted, some readable$/],
  [
    "encrypted without the flag, which K3s needs to read them",
    false,
    { encrypted: 4, readable: 0 },
    false,
    /^encrypted$/,
  ],
  ["missing", true, { encrypted: 0, readable: 0 }, false, /^not checked: no Secret was found there$/],
  ["in no datastore", false, null, false, /^not checked/],
] as const)
  test(`Secrets are ${what}`, async () => {
    const [isOk, found] = await look(isEncrypted, records);
    assert.equal(isOk, ok);
    assert.match(String(found), actual);
  });
