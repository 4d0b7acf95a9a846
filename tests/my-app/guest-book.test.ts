import assert from "node:assert/strict";
import { once } from "node:events";
import { writeFileSync } from "node:fs";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { request } from "node:http";
import { type AddressInfo, connect, createServer, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pipeline } from "node:stream";
import { after, afterEach, before, describe, it } from "node:test";
import { setTimeout as pause } from "node:timers/promises";
import type { Entry } from "../../apps/my-app/entries.ts";
import { createMyApp, waitForDatabase } from "../../apps/my-app/server.ts";
import type { Config } from "../../apps/shared/config.ts";
import type { WebServer } from "../../apps/shared/server.ts";
import { type PostgresPod, PostgresPods } from "./postgres-pods.ts";

const made = await PostgresPods.prepare();
const skip = typeof made === "string" ? made : false;
const pods = made as PostgresPods;

const config = (app: string): Config => ({
  app,
  version: "1.2.3",
  pod: `${app}-1`,
  node: "agent",
  namespace: "my-app",
  podIp: null,
  port: 0,
  lingerMs: 0,
});

/** What a role answers in JSON. */
interface Told {
  readonly app: string;
  readonly namespace: string;
  readonly pod: string;
  readonly database: string;
  readonly entries: readonly Entry[];
  readonly entry: Entry;
  readonly token: string;
}

describe("the guest book and its database", { skip }, () => {
  let folder = "";
  let database: PostgresPod;
  const servers: WebServer[] = [];
  const printed: string[] = [];
  const write = process.stdout.write;
  before(async () => {
    folder = await mkdtemp(join(tmpdir(), "guest-book-"));
    await mkdir(join(folder, "secret"));
    database = await pods.pod("db-0");
    await database.startReady();
    set({
      "database-name": "guestbook",
      "database-user": "guestbook",
      "database-port": String(pods.port),
    });
    await writeFile(join(folder, "secret", "password"), "secret\n");
    await writeFile(join(folder, "secret", "admin-password"), "hunter-2-admin\n");
    // What the app logs is looked at at the end.
    process.stdout.write = ((text: string, ...rest: []) => {
      printed.push(String(text));
      return write.call(process.stdout, text, ...rest);
    }) as typeof write;
  });
  after(async () => {
    process.stdout.write = write;
    await pods.end();
    await rm(folder, { recursive: true });
  });
  afterEach(async () => {
    await Promise.all(servers.splice(0).map(({ stop }) => stop()));
  });

  // At once: another app may be starting, and would find a file that is still empty.
  const set = (settings: Readonly<Record<string, string>>) => {
    for (const [name, text] of Object.entries(settings)) writeFileSync(join(folder, name), `${text}\n`);
  };

  async function start(
    role: string,
    hosts: Readonly<Record<string, string>> = {},
    patienceMs = 120_000,
  ): Promise<string> {
    set({ "database-host": database.address, "database-read-host": database.address, ...hosts });
    const folders = { config: folder, secret: join(folder, "secret") };
    const app = createMyApp(role, config(role), folders, { patienceMs });
    servers.push(app);
    app.server.listen(0, "127.0.0.1");
    await once(app.server, "listening");
    return `http://127.0.0.1:${(app.server.address() as AddressInfo).port}`;
  }

  async function ready(base: string): Promise<string> {
    await database.until(async () => (await fetch(`${base}/readyz`)).status === 200, `made ${base} ready`);
    return base;
  }

  const told = async (response: Response) => (await response.json()) as Told;
  const json = { accept: "application/json", "content-type": "application/json" };
  const newest = async (base: string) => (await list(base)).entries[0]?.id ?? 0;
  const post = (base: string, value: unknown) =>
    fetch(`${base}/api/entries`, { method: "POST", headers: json, body: JSON.stringify(value) });
  const list = async (base: string, query = "") =>
    told(await fetch(`${base}/api/entries${query}`, { headers: json }));
  const form = (
    url: string,
    fields: Readonly<Record<string, string>>,
    headers: Readonly<Record<string, string>> = {},
  ) => fetch(url, { method: "POST", redirect: "manual", body: new URLSearchParams(fields), headers });

  it("several pods starting at once create one table; entries are written and listed, newest first", async () => {
    const [one, other, admin] = await Promise.all([start("api"), start("api"), start("admin")]);
    for (const base of [one, other, admin]) await ready(base);
    const first = await post(one, { name: "Ada", text: "It's <b>me</b>; drop table entries;--" });
    assert.equal(first.status, 201);
    assert.deepEqual([first.headers.get("x-pod"), first.headers.get("x-node")], ["api-1", "agent"]);
    const { entry, pod } = await told(first);
    assert.deepEqual(
      [pod, entry.name, entry.text],
      ["api-1", "Ada", "It's <b>me</b>; drop table entries;--"],
    );
    await post(other, { name: "Ünï 🦊", text: "日本\nb" });
    const said = await list(one);
    assert.deepEqual([said.app, said.database], ["api", database.address]);
    assert.deepEqual(
      said.entries.map(({ name, text }) => [name, text]),
      [
        ["Ünï 🦊", "日本\nb"],
        ["Ada", "It's <b>me</b>; drop table entries;--"],
      ],
    );
    assert.ok(Math.abs(Date.parse(said.entries[0]?.at ?? "") - Date.now()) < 60_000);
    assert.equal((await told(await fetch(`${one}/api`, { headers: json }))).namespace, "my-app");
  });

  it("a browser's form is redirected to the page; a cross-site form is refused", async () => {
    const base = await ready(await start("api"));
    const sent = await form(`${base}/api/entries`, { name: "Bea", text: "by a form" }, { origin: base });
    const [last] = (await list(base)).entries;
    assert.deepEqual([sent.status, sent.headers.get("location")], [303, `/?including=${last?.id}`]);
    assert.equal(last?.text, "by a form");
    for (const headers of [
      { origin: "https://evil.example" },
      { origin: "null" },
      { "sec-fetch-site": "cross-site" },
    ])
      assert.equal(
        (await form(`${base}/api/entries`, { name: "x", text: "x" }, headers as never)).status,
        403,
      );
    const refused = await form(`${base}/api/entries`, { name: "", text: "x" }, { accept: "text/html" });
    assert.equal(refused.status, 400);
    assert.match(await refused.text(), /role="alert">The name is empty\.</);
    assert.equal(await newest(base), last?.id);
  });

  it("rejects invalid, oversized and missing entries", async () => {
    const base = await ready(await start("api"));
    const send = async (body: string | Uint8Array<ArrayBuffer>, type = "application/json") => {
      const response = await fetch(`${base}/api/entries`, {
        method: "POST",
        headers: { "content-type": type },
        body,
      });
      return [response.status, await response.text()];
    };
    assert.deepEqual(await send("{"), [400, "The body is not JSON\n"]);
    assert.deepEqual(await send("[]"), [400, "The body is not a JSON object\n"]);
    assert.deepEqual(await send(`{"name":"x","text":"\\ud800"}`), [
      400,
      "The text contains invalid characters\n",
    ]);
    assert.deepEqual(await send(Uint8Array.from([0x7b, 0xff])), [400, "The body is not UTF-8\n"]);
    assert.deepEqual(await send(JSON.stringify({ name: "x", text: "x".repeat(20_000) })), [
      413,
      "The body is longer than 16384 bytes\n",
    ]);
    assert.equal((await send("x", "text/plain"))[0], 415);
    const put = await fetch(`${base}/api/entries`, { method: "PUT" });
    assert.deepEqual([put.status, put.headers.get("allow")], [405, "GET, HEAD, POST"]);
    for (const path of ["/", "/apiary", "/api/other", "/api/entries/1/2"])
      assert.equal((await fetch(base + path)).status, 404, path);
  });

  it("only an admin session can delete an entry", async () => {
    const [base, admin] = await Promise.all([start("api"), start("admin")]);
    for (const each of [base, admin]) await ready(each);
    const { entry } = await told(await post(base, { name: "x", text: "to be deleted" }));
    const remove = (token?: string) =>
      fetch(`${base}/api/entries/${entry.id}`, {
        method: "DELETE",
        headers: token === undefined ? {} : { authorization: `Bearer ${token}` },
      });
    for (const token of [undefined, "x", "1.2.3"]) assert.equal((await remove(token)).status, 401);
    const logIn = (password: string) =>
      fetch(`${admin}/login`, { method: "POST", headers: json, body: JSON.stringify({ password }) });
    assert.equal((await logIn("wrong")).status, 401);
    const { token } = await told(await logIn("hunter-2-admin"));
    assert.equal((await remove(token)).status, 200);
    assert.equal((await remove(token)).status, 404);
    assert.ok(!(await list(base)).entries.some(({ id }) => id === entry.id));
  });

  it("the admin logs in, deletes and logs out without JavaScript; a clickjacked request deletes nothing", async () => {
    const [base, admin] = await Promise.all([start("api"), start("admin")]);
    for (const each of [base, admin]) await ready(each);
    const { entry } = await told(await post(base, { name: "<i>", text: "bad" }));
    const html = { accept: "text/html" };
    assert.match(await (await fetch(`${admin}/login`, { headers: html })).text(), /<label for="password">/);
    assert.deepEqual(await (await fetch(`${admin}/login`, { headers: json })).json(), {
      ...{ app: "admin", version: "1.2.3", namespace: "my-app", pod: "admin-1", node: "agent", podIp: null },
      session: false,
    });
    const wrong = await form(`${admin}/login`, { password: "wrong" });
    assert.deepEqual([wrong.status, wrong.headers.get("set-cookie")], [401, null]);
    const right = await form(
      `${admin}/login`,
      { password: "hunter-2-admin" },
      { origin: admin, "x-forwarded-proto": "https" },
    );
    assert.deepEqual([right.status, right.headers.get("location")], [303, "/login"]);
    const set = right.headers.get("set-cookie") ?? "";
    assert.match(set, /HttpOnly; SameSite=Strict; Secure$/);
    const cookie = set.split(";")[0] ?? "";
    const page = await (await fetch(`${admin}/login`, { headers: { ...html, cookie } })).text();
    assert.ok(page.includes("&#60;i&#62;") && page.includes(`name="id" value="${entry.id}"`));
    const [, token = ""] = /name="token" value="([^"]+)"/.exec(page) ?? [];

    const id = String(entry.id);
    const remove = (fields: Readonly<Record<string, string>>, headers: Readonly<Record<string, string>>) =>
      form(`${admin}/login/delete`, fields, headers);
    assert.equal((await remove({ id }, { cookie })).status, 403);
    assert.equal((await remove({ id, token: "x" }, { cookie })).status, 403);
    assert.equal((await remove({ id, token }, { cookie, origin: "https://evil.example" })).status, 403);
    assert.equal((await remove({ id, token }, {})).headers.get("location"), "/login");
    assert.equal((await fetch(`${admin}/login/delete`, { headers: { cookie } })).status, 405);
    assert.equal(await newest(base), entry.id);
    assert.equal(
      (await remove({ id, token }, { cookie, origin: admin })).headers.get("location"),
      "/login?changed",
    );
    assert.notEqual(await newest(base), entry.id);
    assert.equal((await remove({ id, token }, { cookie })).status, 303, "twice is once");
    const out = await form(`${admin}/login/logout`, { token }, { cookie });
    assert.match(out.headers.get("set-cookie") ?? "", /^my-app-session=; .*Max-Age=0/);
  });

  it("failed logins take time, and too many at once are throttled", async () => {
    const admin = await ready(await start("admin"));
    const began = performance.now();
    const guess = async () => {
      const sent = Array.from({ length: 8 }, (_, guess) => form(`${admin}/login`, { password: `${guess}` }));
      return (await Promise.all(sent)).map(({ status }) => status).sort();
    };
    // On a computer that is busy not all of them come at once.
    const expected = "401 401 401 401 429 429 429 429";
    await database.until(async () => (await guess()).join(" ") === expected, "was asked by all at once");
    assert.ok(performance.now() - began >= 500);
  });

  it("nothing is lost or written twice while the database restarts", async () => {
    const base = await ready(await start("api"));
    const before = await newest(base);
    const writing = async (writer: number) => {
      for (let turn = 0; turn < 15; turn++) {
        assert.equal((await post(base, { name: "w", text: `${writer}-${turn}` })).status, 201);
        assert.equal((await fetch(`${base}/api/entries`)).status, 200);
      }
    };
    const all = Promise.all([writing(0), writing(1), writing(2)]);
    await database.until(async () => (await newest(base)) > before + 5, "is written to");
    assert.equal(await database.stop(), 0);
    await database.startReady();
    await all;
    const count = await database.sql("select count(*), count(distinct text) from entries where name = 'w'");
    assert.equal(count, "45|45");
  });

  it("reads work without the replica, and authors see their entry even if it lags", async () => {
    const behind = await pods.pod("other-0");
    await behind.startReady({ PEER_HOSTS: "", PRIMARY_HOST: "other-0" });
    const base = await start("api", { "database-read-host": behind.address });
    const lonely = await start("api", { "database-read-host": "127.0.0.1" });
    await ready(base);
    await behind.sql("create table entries (id bigint, name text, text text, at timestamptz)");
    const { entry } = await told(await post(base, { name: "x", text: "just now" }));
    const plain = await list(base);
    assert.deepEqual([plain.database, plain.entries], [behind.address, []]);
    const own = await list(base, `?including=${entry.id}`);
    assert.deepEqual([own.database, own.entries[0]?.id], [database.address, entry.id]);
    await ready(lonely);
    assert.equal(await newest(lonely), entry.id);
    await behind.stop();
  });

  it("is ready at its first probe if the database answers", async () => {
    const base = await start("api");
    assert.equal((await fetch(`${base}/readyz`)).status, 200);
  });

  it("is unready without its database, and answers 503", async () => {
    const nobody = { "database-host": "127.0.0.1", "database-read-host": "127.0.0.1" };
    const base = await start("api", nobody, 300);
    const response = await fetch(`${base}/readyz`);
    assert.deepEqual([response.status, await response.text()], [503, "the database was not reached yet\n"]);
    assert.equal((await fetch(`${base}/healthz`)).status, 200);
    const late = await fetch(`${base}/api/entries`);
    assert.equal(late.status, 503);
    assert.match(await late.text(), /The database does not answer/);
  });

  it("an init container waits until the database answers", async () => {
    set({ "database-host": "127.0.0.1" });
    const folders = { config: folder, secret: join(folder, "secret") };
    const ending = new AbortController();
    const waiting = waitForDatabase(folders, ending.signal);
    assert.equal(await Promise.race([waiting, pause(1000, "still")]), "still");
    ending.abort();
    await waiting;
    // The Service of a database that is not ready swallows connections.
    let swallowed: Socket | undefined;
    const service = createServer((socket) => {
      swallowed ??= socket.resume();
      if (socket !== swallowed) pipeline(socket, connect(pods.port, database.address), socket, () => {});
    });
    await once(service.listen(pods.port, "127.0.0.1"), "listening");
    await waitForDatabase(folders, new AbortController().signal);
    const isOpen = swallowed?.closed === false;
    swallowed?.destroy();
    service.close();
    assert.ok(isOpen, "it has not waited for that one");
    set({ "database-host": database.address });
  });

  it("accepts a changed password without a restart", async () => {
    const base = await ready(await start("api"));
    await database.setPasswords("hunter-3", "copying");
    await writeFile(join(folder, "secret", "password"), "hunter-3\n");
    await database.until(
      () =>
        database.sql("select 1", { password: "hunter-3" }).then(
          () => true,
          () => false,
        ),
      "lets it in",
    );
    await database.admin(
      "select pg_terminate_backend(pid) from pg_stat_activity where usename = 'guestbook'",
    );
    assert.equal((await post(base, { name: "x", text: "with another password" })).status, 201);
  });

  it("an oversized body that is cut off affects no other request", async () => {
    const base = await ready(await start("api"));
    const body = JSON.stringify({ name: "x", text: "x".repeat(5_000_000) });
    const answer = await fetch(`${base}/api/entries`, { method: "POST", headers: json, body }).catch(
      () => undefined,
    );
    assert.ok(answer === undefined || answer.status === 413);
    assert.equal((await post(base, { name: "x", text: "goes on" })).status, 201);
    const [line = ""] = printed.filter((text) => text.includes('"status":413')).slice(-1);
    assert.match(line, /"client":"127\.0\.0\.1"/);
  });

  it("a body that never arrives does not delay the exit", async () => {
    const base = await ready(await start("api"));
    const { hostname, port } = new URL(base);
    const headers = { "content-type": "application/json", "content-length": "100" };
    const open = request({ hostname, port, path: "/api/entries", method: "POST", headers });
    open.on("error", () => {}).write("{");
    const [server] = servers;
    assert.ok(server);
    await once(server.server, "request");
    open.destroy();
    assert.equal(await server.stop(), true);
    // Who hung up is no fault of the database.
    const lines = printed.filter((text) => text.includes('"cut":true') || text.includes("aborted"));
    assert.match(lines.join(), /"status":499[^{]*$/);
  });

  it("no secret is logged", () => {
    const all = printed.join("");
    assert.match(all, /"path":"\/login"/);
    for (const secret of ["hunter-2-admin", "hunter-3", "my-app-session"])
      assert.ok(!all.includes(secret), secret);
  });
});
