import assert from "node:assert/strict";
import { once } from "node:events";
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { createServer, type RequestListener, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, afterEach, describe, it } from "node:test";
import type { Config } from "../shared/config.ts";
import { accessLog } from "./access-log.ts";
import { createMyApp } from "./server.ts";

const config: Config = {
  app: "frontend",
  version: "1.2.3",
  pod: "frontend-1",
  node: "agent",
  namespace: "my-app",
  podIp: "10.42.1.7",
  port: 0,
  lingerMs: 0,
};

const folder = await mkdtemp(join(tmpdir(), "my-app-"));
after(() => rm(folder, { recursive: true }));
const servers: Server[] = [];
afterEach(() => {
  for (const server of servers.splice(0)) {
    server.close();
    server.closeAllConnections();
  }
});

async function listen(server: Server): Promise<string> {
  servers.push(server);
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

const evil = `<img src=x onerror='alert("&")'>`;
const entry = { id: 7, name: evil, text: "a\nb", at: "2026-11-30T01:02:03.000Z" };
const answering: RequestListener = (request, response) => {
  response.end(
    JSON.stringify({
      pod: "api-1",
      node: "server",
      database: "db-read",
      asked: request.url,
      entries: [entry],
    }),
  );
};

async function start(api: RequestListener | string): Promise<string> {
  const base = typeof api === "string" ? api : `${await listen(createServer(api))}/api`;
  for (const [name, text] of Object.entries({ title: "Guests & <b>", greeting: "Hello", "api-url": base }))
    await writeFile(join(folder, name), `${text}\n`);
  return await listen(
    createMyApp("frontend", config, { config: folder, secret: folder }, { logFile: join(folder, "log", "a") })
      .server,
  );
}

describe("the frontend", () => {
  it("renders entries without JavaScript and escapes markup", async () => {
    const asked: string[] = [];
    const base = await start((request, response) => {
      asked.push(request.url ?? "");
      answering(request, response);
    });
    const response = await fetch(`${base}/?including=7`, { headers: { accept: "text/html" } });
    const page = await response.text();
    assert.equal(response.status, 200);
    assert.deepEqual(asked, ["/api/entries?including=7"]);
    assert.ok(page.includes("&#60;img src=x onerror=&#39;alert(&#34;&#38;&#34;)&#39;&#62;"));
    assert.ok(page.includes("<h1>Guests &#38; &#60;b&#62;</h1>"));
    assert.doesNotMatch(page, /<img|<script|src="|url\(/);
    for (const shown of [
      "frontend-1",
      "agent",
      "api-1",
      "server",
      "db-read",
      'datetime="2026-11-30T01:02:03.000Z"',
    ])
      assert.ok(page.includes(shown), shown);
    for (const id of ["name", "text"])
      assert.ok(page.includes(`<label for="${id}">`) && page.includes(`id="${id}"`));
    assert.deepEqual(
      [response.headers.get("x-pod"), response.headers.get("x-node")],
      ["frontend-1", "agent"],
    );
    assert.match(
      response.headers.get("content-security-policy") ?? "",
      /^default-src 'none'; style-src 'sha256-[^']+'; .*form-action 'self'; frame-ancestors 'none'$/,
    );
  });

  it("returns the same as JSON", async () => {
    const base = await start(answering);
    const json = await fetch(base, { headers: { accept: "application/json" } });
    assert.deepEqual(await json.json(), {
      app: "frontend",
      version: "1.2.3",
      namespace: "my-app",
      pod: "frontend-1",
      node: "agent",
      podIp: "10.42.1.7",
      title: "Guests & <b>",
      entries: 1,
      api: { pod: "api-1", node: "server", database: "db-read", asked: "/api/entries" },
    });
    assert.equal(
      await (await fetch(base)).text(),
      "frontend 1.2.3 pod=frontend-1 node=agent entries=1 api=api-1 database=db-read\n",
    );
  });

  it("serves the page with an error status when the API is down", async () => {
    const base = await start("http://127.0.0.1:9/api");
    const response = await fetch(base, { headers: { accept: "text/html" } });
    assert.equal(response.status, 503);
    assert.match(await response.text(), /The entries cannot be read at the moment/);
    assert.equal((await fetch(`${base}/readyz`)).status, 200, "other pods could not do better");
    const failing = await start((_, response) => response.writeHead(500).end("{}"));
    assert.equal((await fetch(failing)).status, 503);
  });

  it("retries when the API has closed the connection", async () => {
    let connections = 0;
    const base = await start((request, response) => {
      connections += 1;
      if (connections === 2) request.socket.destroy();
      else answering(request, response);
    });
    for (let time = 0; time < 2; time++) assert.equal((await fetch(base)).status, 200);
    assert.equal(connections, 3);
  });

  it("rejects unknown paths and methods", async () => {
    const base = await start(answering);
    assert.equal((await fetch(`${base}/nowhere`)).status, 404);
    assert.equal((await fetch(`${base}/?including=x`)).status, 400);
    const post = await fetch(base, { method: "POST", body: "x" });
    assert.deepEqual(
      [post.status, post.headers.get("allow"), post.headers.get("x-pod")],
      [405, "GET, HEAD", "frontend-1"],
    );
  });

  it("writes each request as a JSON line to the shared log folder", async () => {
    await mkdir(join(folder, "log"), { recursive: true });
    const base = await start(answering);
    await (await fetch(`${base}/?a=1`, { headers: { "x-forwarded-for": "192.168.42.9, 10.42.0.1" } })).text();
    await fetch(`${base}/healthz`);
    const lines = (await readFile(join(folder, "log", "a"), "utf8")).trim().split("\n");
    assert.equal(lines.length, 1, "probes are none of them");
    const { time, ms, ...line } = JSON.parse(lines[0] ?? "");
    assert.ok(Date.parse(time) > 0 && ms >= 0);
    const host = base.slice("http://".length);
    const who = { pod: "frontend-1", client: "192.168.42.9", method: "GET", host };
    assert.deepEqual(line, { ...who, path: "/?a=1", status: 200, cut: false });
  });

  it("rotates the log before it fills the volume", async () => {
    await mkdir(join(folder, "small"), { recursive: true });
    const file = join(folder, "small", "access.log");
    await writeFile(file, "x".repeat(4 * 1024 * 1024));
    accessLog(file, (error) => assert.fail(String(error)))("{}");
    assert.deepEqual((await readdir(join(folder, "small"))).sort(), ["access.log", "access.log.1"]);
    assert.equal(await readFile(file, "utf8"), "{}\n");
  });

  it("names a missing or invalid setting", async () => {
    const make = () => createMyApp("frontend", config, { config: folder, secret: folder });
    await writeFile(join(folder, "api-url"), "ftp://x\n");
    assert.throws(make, /^RangeError: api-url is "ftp:\/\/x"/);
    await rm(join(folder, "api-url"));
    assert.throws(
      make,
      /api-url cannot be read \(ENOENT\); it must be a key of the app's ConfigMap or Secret/,
    );
    assert.throws(
      () => createMyApp("other", config, { config: folder, secret: folder }),
      /one of frontend, api, admin, log-metrics, wait/,
    );
  });
});
