import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { Agent, type IncomingMessage, request, type Server } from "node:http";
import { type AddressInfo, connect } from "node:net";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { after, before, describe, it } from "node:test";
import { setTimeout as pause } from "node:timers/promises";
import { preferredFormat } from "../shared/accept.ts";
import { type Config, readConfig } from "../shared/config.ts";
import { createWebServer } from "./server.ts";

const config: Config = {
  app: "app2",
  version: "1.2.3",
  pod: "app2-7d9f-x2x4v",
  node: "agent",
  namespace: "default",
  podIp: "10.42.1.7",
  port: 0,
  lingerMs: 0,
};

describe("the web app", () => {
  const { server } = createWebServer(config);
  let base = "";
  before(async () => {
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
    base = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  });
  after(() => {
    server.close();
    server.closeAllConnections();
  });

  it("returns JSON with the pod and the request", async () => {
    const response = await fetch(`${base}/?a=1`, {
      headers: {
        accept: "application/json",
        "x-forwarded-for": "192.168.42.1, 10.42.0.5",
        "x-forwarded-host": "app2.com",
        "x-secret": "not shown",
      },
    });
    assert.equal(response.status, 200);
    assert.equal(response.headers.get("content-type"), "application/json; charset=utf-8");
    assert.equal(response.headers.get("vary"), "Accept");
    assert.deepEqual(await response.json(), {
      app: "app2",
      version: "1.2.3",
      pod: "app2-7d9f-x2x4v",
      node: "agent",
      namespace: "default",
      podIp: "10.42.1.7",
      request: {
        method: "GET",
        host: base.slice("http://".length),
        path: "/?a=1",
        protocol: "HTTP/1.1",
        client: "192.168.42.1",
        peer: "127.0.0.1",
        forwarded: { "x-forwarded-for": "192.168.42.1, 10.42.0.5", "x-forwarded-host": "app2.com" },
      },
    });
  });

  it("renders the same as a page without scripts or external resources", async () => {
    const response = await fetch(base, { headers: { accept: "text/html" } });
    const page = await response.text();
    assert.equal(response.headers.get("content-type"), "text/html; charset=utf-8");
    for (const value of ["app2", "1.2.3", "app2-7d9f-x2x4v", "agent", "10.42.1.7", "default/app2"])
      assert.ok(page.includes(value), value);
    assert.doesNotMatch(page, /<script|src="|url\(/);
    assert.match(
      response.headers.get("content-security-policy") ?? "",
      /default-src 'none'; style-src 'sha256-/,
    );
  });

  it("never renders a header as markup", async () => {
    const evil = `<img src=x onerror='alert("&")'>`;
    const { body } = await plainGet(base, "/", { accept: "text/html", host: evil, "x-forwarded-host": evil });
    assert.ok(!body.includes("<img"));
    assert.ok(body.includes("&#60;img src=x onerror=&#39;alert(&#34;&#38;&#34;)&#39;&#62;"));
  });

  it("answers HEAD with the page's headers and no body", async () => {
    const page = await fetch(base);
    const head = await fetch(base, { method: "HEAD" });
    assert.equal(head.status, 200);
    assert.equal(head.headers.get("content-length"), page.headers.get("content-length"));
    assert.equal(await head.text(), "");
    assert.ok(Number(page.headers.get("content-length")) > 0);
  });

  it("answers under any path, since an Ingress passes the path on", async () => {
    for (const path of ["/api", "/api/entries?a=1", "/a.b/~c"]) {
      const response = await fetch(base + path, { headers: { accept: "application/json" } });
      assert.equal(response.status, 200);
      const { request } = (await response.json()) as { request: { path: string } };
      assert.equal(request.path, path);
    }
  });

  it("redirects http to https only when configured to", async () => {
    const secure = createWebServer({ ...config, httpsPort: 8444 }).server;
    const standard = createWebServer({ ...config, httpsPort: 443 }).server;
    const ask = async (server: Server, path: string, headers: Record<string, string>) => {
      if (!server.listening) await once(server.listen(0, "127.0.0.1"), "listening");
      const { port } = server.address() as AddressInfo;
      const { status, location } = await plainGet(`http://127.0.0.1:${port}`, path, headers);
      return status === 308 ? location : status;
    };
    const http = { "x-forwarded-proto": "http", host: "app.com:8081" };
    try {
      assert.equal(await ask(secure, "/api?a=1", http), "https://app.com:8444/api?a=1");
      assert.equal(await ask(standard, "/", http), "https://app.com/");
      assert.equal(await ask(standard, "//evil.com/x", http), "https://app.com/x");
      assert.equal(await ask(standard, "/", { ...http, host: "[::1]:80" }), "https://[::1]/");
      assert.equal(await ask(standard, "/", { ...http, host: "a b" }), 400);
      assert.equal(await ask(standard, "/", { ...http, "x-forwarded-proto": "https" }), 200);
      assert.equal(await ask(standard, "/", { host: "app.com" }), 200);
      assert.equal(await ask(standard, "/healthz", http), 200);
    } finally {
      for (const server of [secure, standard]) server.close();
    }
    assert.equal(await plainGet(base, "/", http).then(({ status }) => status), 200);
  });

  it("rejects what it does not serve", async () => {
    const post = await fetch(base, { method: "POST", body: "x" });
    assert.equal(post.status, 405);
    assert.equal(post.headers.get("allow"), "GET, HEAD");
    assert.equal((await fetch(`${base}/slow?ms=99999`)).status, 400);
    assert.equal((await plainGet(base, "//[", {})).status, 400);
  });

  it("answers probes", async () => {
    assert.equal((await fetch(`${base}/healthz`)).status, 200);
    assert.equal((await fetch(`${base}/readyz`)).status, 200);
    const broken = createWebServer({ ...config, version: "1.1.0-broken" });
    broken.server.listen(0, "127.0.0.1");
    await once(broken.server, "listening");
    const at = `http://127.0.0.1:${(broken.server.address() as AddressInfo).port}`;
    const statuses = [`${at}/healthz`, `${at}/readyz`].map(async (url) => (await fetch(url)).status);
    assert.deepEqual(await Promise.all(statuses), [200, 503]);
    await broken.stop();
  });

  it("counts requests, but not probes, for Prometheus, on a port outside the Ingress", async () => {
    const { server: fresh, metricsServer, stop } = createWebServer(config);
    const baseOf = async (one: Server) => {
      one.listen(0, "127.0.0.1");
      await once(one, "listening");
      return `http://127.0.0.1:${(one.address() as AddressInfo).port}`;
    };
    const [own, apart] = [await baseOf(fresh), await baseOf(metricsServer)];
    for (const path of ["/", "/metrics", "/slow?ms=x", "/healthz", "/readyz"])
      assert.doesNotMatch(await (await fetch(own + path)).text(), /http_requests/);
    assert.equal((await fetch(`${apart}/`)).status, 404);
    const metrics = await fetch(`${apart}/metrics`);
    assert.match(metrics.headers.get("content-type") ?? "", /^text\/plain; version=0\.0\.4/);
    const text = await metrics.text();
    for (const line of [
      'http_requests_total{method="GET",code="200"} 2',
      'http_requests_total{method="GET",code="400"} 1',
      "http_requests_in_flight 0",
      'http_request_duration_seconds_bucket{le="+Inf"} 3',
      "http_request_duration_seconds_count 3",
    ])
      assert.ok(text.split("\n").includes(line), `${line} is not in\n${text}`);
    await stop();
  });
});

it("negotiates the format by Accept", () => {
  const cases: Readonly<Record<string, string>> = {
    "": "text",
    "*/*": "text",
    "application/json": "json",
    "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8": "html",
    "application/json, */*;q=0.1": "json",
    "text/html;q=0.5, application/json;q=0.9": "json",
    "text/plain": "text",
    "image/png": "text",
    "application/json;q=0, text/plain": "text",
  };
  for (const [accept, format] of Object.entries(cases)) assert.equal(preferredFormat(accept), format, accept);
});

it("reads its environment, with defaults and limits", () => {
  const read = readConfig({ APP_NAME: "app1", POD_NAME: "p", NODE_NAME: "", PORT: "80" });
  assert.deepEqual(read, {
    app: "app1",
    version: "dev",
    pod: "p",
    node: null,
    namespace: null,
    podIp: null,
    port: 80,
    lingerMs: 6000,
  });
  for (const PORT of ["65536", "-1", "80a", "1e3", "8.5"])
    assert.throws(() => readConfig({ PORT }), new RegExp(`^RangeError: PORT is "${PORT}"`));
});

describe("shutdown on SIGTERM", () => {
  it("keeps answering briefly while unready", async () => {
    const { child, base } = await start({ LINGER_MS: "30000" });
    const agent = new Agent({ keepAlive: true });
    await plainGet(base, "/", {}, agent);

    await seen(child, /SIGTERM/, () => child.kill("SIGTERM"));
    assert.equal((await plainGet(base, "/readyz", {})).status, 503);
    assert.equal((await plainGet(base, "/healthz", {})).status, 200);
    const during = await plainGet(base, "/", {}, agent);
    assert.deepEqual([during.status, during.connection], [200, "close"]);
    child.kill("SIGKILL");
    agent.destroy();
  });

  it("finishes open requests before it exits", async () => {
    const { child, base } = await start({ LINGER_MS: "0" });
    const ended = once(child, "exit");
    const asked = request(`${base}/slow?ms=700`, { headers: { expect: "100-continue" } });
    const answered = once(asked, "response") as Promise<[IncomingMessage]>;
    // It says so once the request has come.
    await once(asked.end(), "continue");

    child.kill("SIGTERM");
    const [response] = await answered;
    assert.equal(response.resume().statusCode, 200);
    assert.deepEqual(await ended, [0, null]);
  });

  it("lingers as long as configured, and at most two and a half times as long", async () => {
    const { child, base } = await start({ LINGER_MS: "1000" });
    const ended = once(child, "exit");
    const line = await seen(child, /SIGTERM/, () => child.kill("SIGTERM"));
    const began = Date.parse(line.split(" ", 1)[0] ?? "");
    const isThere = () =>
      plainGet(base, "/", {}).then(
        ({ status }) => status === 200,
        () => false,
      );

    // A proxy that has not heard of the end keeps asking; one that never hears of it does not keep it for ever.
    let [askedAt, longestPause] = [began, 0];
    while (await isThere()) {
      longestPause = Math.max(longestPause, Date.now() - askedAt);
      await pause(50);
      askedAt = Date.now();
    }
    const lasted = Date.now() - began;
    assert.deepEqual(await ended, [0, null]);
    // On a computer that stood still meanwhile it was not asked all the time.
    assert.ok(longestPause >= 2000 || lasted >= 2490, `a request was lost after ${lasted} ms`);
  });

  it("does not wait for idle connections", async () => {
    const { child, base } = await start({ LINGER_MS: "0" });
    const agent = new Agent({ keepAlive: true });
    await plainGet(base, "/", {}, agent);
    const ended = once(child, "exit");
    child.kill("SIGTERM");
    assert.deepEqual(await ended, [0, null]);
    agent.destroy();
  });

  it("refuses to start with an invalid port", async () => {
    const child = spawn(process.execPath, [join(import.meta.dirname, "server.ts")], {
      env: { ...process.env, PORT: "http" },
    });
    const said = child.stderr.setEncoding("utf8").toArray();
    assert.deepEqual(await once(child, "exit"), [2, null]);
    assert.match((await said).join(""), /PORT is "http"; it must be a whole number from 0 to 65535/);
  });
});

interface Reply {
  readonly status: number | undefined;
  readonly connection: string | undefined;
  readonly location: string | undefined;
  readonly body: string;
}

/** A GET that sends its headers and path as they are, which fetch would not. */
function plainGet(
  base: string,
  path: string,
  headers: Readonly<Record<string, string>>,
  agent?: Agent,
): Promise<Reply> {
  const { hostname, port } = new URL(base);
  return new Promise((done, fail) => {
    const options = { hostname, port, path, headers, ...(agent === undefined ? {} : { agent }) };
    request(options, async (response) => {
      const body = (await response.setEncoding("utf8").toArray()).join("");
      done({
        status: response.statusCode,
        connection: response.headers.connection,
        location: response.headers.location,
        body,
      });
    })
      .on("error", fail)
      .end();
  });
}

async function start(env: Readonly<Record<string, string>>): Promise<{ child: ChildProcess; base: string }> {
  const child = spawn(process.execPath, [join(import.meta.dirname, "server.ts")], {
    env: { ...process.env, PORT: "0", ...env },
    stdio: ["ignore", "pipe", "inherit"],
  });
  const line = await seen(child, /listens on port/);
  return { child, base: `http://127.0.0.1:${/port (\d+)/.exec(line)?.[1]}` };
}

/** The first line of its output that matches, after `act`. */
async function seen(child: ChildProcess, pattern: RegExp, act: () => void = () => {}): Promise<string> {
  if (child.stdout === null) throw new Error("no output");
  const lines = createInterface({ input: child.stdout });
  const found = new Promise<string>((done) => {
    lines.on("line", (line) => {
      if (pattern.test(line)) done(line);
    });
  });
  act();
  return found;
}

it("a connection without a request does not delay the exit", async () => {
  const { server, stop } = createWebServer({ ...config, lingerMs: 0 });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const silent = connect((server.address() as AddressInfo).port, "127.0.0.1");
  await once(silent, "connect");
  const closed = once(silent, "close");
  const began = performance.now();
  assert.equal(await stop(), true);
  await closed;
  assert.ok(performance.now() - began < 20_000, "the silent connection was waited for");
});
