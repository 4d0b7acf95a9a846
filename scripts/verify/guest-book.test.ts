import assert from "node:assert/strict";
import { test } from "node:test";
import type { KubernetesApi } from "../../stacks/lib/kubernetes.ts";
import { type MyAppConfig, parseConfig } from "../../stacks/model/config.ts";
import { type Check, runChecks } from "./check.ts";
import { checkDatabase, checkPage } from "./guest-book.ts";

const config = (replicas: number): MyAppConfig =>
  parseConfig("my-app", { cluster: { stack: "cluster" }, database: { replicas } }, "FILE");

const pod = (name: string, ready: boolean) => ({
  metadata: { name, labels: { "app.kubernetes.io/name": "db", "app.kubernetes.io/part-of": "k3s-lab" } },
  status: { conditions: [{ type: "Ready", status: ready ? "True" : "False" }], containerStatuses: [] },
});

/** @param says what psql prints in a pod, each time that it is asked; the last again and again. */
async function look(
  replicas: number,
  says: Readonly<Record<string, readonly string[]>>,
  ready: readonly boolean[] = [true, true].slice(0, replicas),
  note: object | false = {},
): Promise<Record<string, Check>> {
  const turns = new Map<string, number>();
  const exec = async (name: string): Promise<string> => {
    const answers = says[name] ?? [];
    const turn = turns.get(name) ?? 0;
    turns.set(name, turn + 1);
    const answer = answers[Math.min(turn, answers.length - 1)];
    if (answer === undefined) throw new Error(`kubectl exec ${name}: container not found`);
    return answer;
  };
  const api = {
    pods: async () => ready.map((is, ordinal) => pod(`db-${ordinal}`, is)),
    object: async (path: string) =>
      path === "/api/v1/namespaces/my-app/configmaps/db-made" ? note || undefined : undefined,
    events: async () => [],
    cronJobs: async () => [
      { metadata: { name: "db-backup" }, spec: { suspend: false }, status: { active: [] } },
    ],
  } as unknown as KubernetesApi;
  const sources = { api: Promise.resolve(api), exec: Promise.resolve(exec) };
  const checks = await runChecks("my-app", [checkDatabase(config(replicas), "Run it.", sources)]);
  return Object.fromEntries(checks.map((one) => [one.id.replace("my-app/db/", ""), one]));
}

test("passes when the replica has all that was written", async () => {
  const checks = await look(2, { "db-0": ["f|1|5000"], "db-1": ["t|0|5000"] });
  assert.deepEqual(Object.keys(checks), ["replicas", "primary", "replica", "backup"]);
  assert.deepEqual(
    Object.values(checks).filter(({ ok }) => !ok),
    [],
  );
});

test("expects no replica where there is none", async () => {
  const checks = await look(1, { "db-0": ["f|0|5000"] });
  assert.deepEqual(Object.keys(checks), ["replicas", "primary", "backup"]);
  assert.ok(Object.values(checks).every(({ ok }) => ok));
});

test("waits for a replica that is catching up", async () => {
  const { replica } = await look(2, { "db-0": ["f|1|5000"], "db-1": ["t|0|4000", "t|0|5100"] });
  assert.equal(replica?.ok, true);
});

const broken: readonly (readonly [
  what: string,
  says: Record<string, string[]>,
  check: string,
  actual: RegExp,
])[] = [
  [
    "a replica that is behind",
    { "db-0": ["f|1|5000"], "db-1": ["t|0|4904"] },
    "replica",
    /last 96 bytes of db-0's log/,
  ],
  ["no replica streams", { "db-0": ["f|0|5000"], "db-1": ["t|0|5000"] }, "primary", /no replica streams/],
  ["pod 0 follows", { "db-0": ["t|0|5000"], "db-1": ["f|0|5000"] }, "primary", /not db-0/],
  ["two primaries", { "db-0": ["f|0|5000"], "db-1": ["f|0|5000"] }, "replica", /takes writes itself/],
  ["no answer", {}, "primary", /not checked: kubectl exec db-0/],
  ["a different answer", { "db-0": ["what"] }, "primary", /not checked: psql's answer is not understood/],
];
for (const [what, says, check, actual] of broken)
  test(`reports ${what}`, async () => {
    const found = (await look(2, says))[check];
    assert.equal(found?.ok, false);
    assert.match(found.actual, actual);
  });

test("reports a pod that is not ready", async () => {
  const { replicas } = await look(2, {}, [true, false]);
  assert.match(replicas?.actual ?? "", /^1 ready; db-1 is /);
});

test("reports a missing note of the database's creation", async () => {
  const { replicas } = await look(1, {}, [true], false);
  assert.equal(replicas?.ok, false);
  assert.match(replicas?.actual ?? "", /^1 ready; the ConfigMap db-made is missing/);
});

/** What the check of the backups finds. @param cron what the API server says of the CronJob; undefined: there is none. */
async function backups(cron: object | undefined, backup: object = {}): Promise<Check | undefined> {
  const its = parseConfig("my-app", { cluster: { stack: "cluster" }, backup }, "FILE");
  const one = { metadata: { name: "db-backup" }, spec: { suspend: false }, status: { active: [] }, ...cron };
  const api = {
    pods: async () => [],
    object: async () => ({}),
    events: async () => [],
    cronJobs: async () => (cron ? [{ ...one, metadata: { name: "other" } }, one] : []),
  } as unknown as KubernetesApi;
  const sources = { api: Promise.resolve(api), exec: Promise.resolve(async () => "") };
  const checks = await runChecks("my-app", [checkDatabase(its, "Run it.", sources)]);
  return checks.find(({ id }) => id === "my-app/db/backup");
}
const hoursAgo = (hours: number): string => new Date(Date.now() - hours * 3_600_000).toISOString();
const ran = (due: number, whole?: number, active: readonly object[] = []) => ({
  lastScheduleTime: hoursAgo(due),
  ...(whole === undefined ? {} : { lastSuccessfulTime: hoursAgo(whole) }),
  active,
});
const suspended = { spec: { suspend: true } };

const seen: readonly (readonly [ok: boolean, found: RegExp, cron: object | undefined, backup?: object])[] = [
  [true, /^at "17 3 \* \* \*", none was due yet$/, {}],
  [true, /, made on schedule; the newest is 5 h old$/, { status: ran(5.1, 5) }],
  [true, /, being made; the newest is 29 h old$/, { status: ran(0.1, 29, [{}]) }],
  [true, /, made on schedule; the newest is 3 days old$/, { status: ran(73, 72) }],
  [true, /^suspended; the newest is 5 days old$/, { ...suspended, status: ran(3, 120) }, { suspend: true }],
  [true, /^suspended; there is none yet$/, suspended, { suspend: true }],
  [false, /^there is no CronJob db-backup$/, undefined],
  [false, /^suspended; there is none yet$/, suspended],
  [false, /, none was due yet$/, {}, { suspend: true }],
  [false, /, the one of \d{4}-\S+Z failed; the newest is 29 h old$/, { status: ran(5, 29) }],
  [false, /, the one of \S+ failed; there is none yet$/, { status: ran(5) }],
];
for (const [ok, found, cron, backup] of seen)
  test(`backups ${ok ? "pass" : "fail"}: ${found.source}`, async () => {
    const check = await backups(cron, backup);
    assert.match(check?.actual ?? "", found);
    assert.equal(check?.ok, ok);
    // What was missed `lab up` cannot make up for; that the CronJob is another one it can.
    assert.equal(check?.isPast, /failed/.test(found.source) ? true : undefined);
  });

const pageOf = async (status: number, body: object | string, values: object = {}) => {
  const its = parseConfig("my-app", { cluster: { stack: "cluster" }, ...values }, "FILE");
  const text = typeof body === "string" ? body : JSON.stringify(body);
  return runChecks("my-app", [checkPage(its, "Run it.", async () => ({ status, body: text }))]);
};

test("the page has the stack file's title, and its entries come from the replica", async () => {
  const right = { title: "Guest book", entries: 3, api: { database: "db-read" } };
  const [ok] = await pageOf(200, right);
  assert.deepEqual([ok?.id, ok?.ok], ["my-app/frontend/page", true]);
  const [other] = await pageOf(200, { ...right, title: "Old" });
  assert.equal(other?.actual, '"Old", with entries from db-read');
  const [fallback] = await pageOf(200, { ...right, api: { database: "db" } });
  assert.equal(fallback?.ok, false);
  const [broken] = await pageOf(503, right);
  assert.equal(broken?.actual, "status 503");
  const [text] = await pageOf(200, "hello");
  assert.match(text?.actual ?? "", /^not checked/);
  assert.deepEqual(await pageOf(200, right, { replicas: { api: 0 } }), []);
});
