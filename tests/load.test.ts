import assert from "node:assert/strict";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { createServer } from "node:http";
import { createServer as createSecureServer } from "node:https";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { rootCertificates } from "node:tls";
import { serve } from "../stacks/lib/test-server.ts";
import { caFile, labCertificate } from "../stacks/observe/lab-ca.ts";
import { lossDuring, spans, startLoad } from "./load.ts";

test("counts every unanswered request with its reason; closed idle connections cost none", async (t) => {
  let asked = 0;
  const server = createServer((request, response) => {
    asked += 1;
    if (asked % 50 === 0) request.socket.destroy();
    else if (asked % 50 === 1) response.writeHead(502).end();
    else response.end("{}");
  });
  const address = await serve(t, server);
  const run = { addresses: [address], hosts: ["a", "b"], rate: 100_000 };
  const once = await startLoad(run).stop(200);
  assert.deepEqual([once.total, once.lost, once.repeated], [200, 8, 0]);
  assert.ok(
    Object.keys(once.reasons).some((reason) => /(a|b) through 127.*: (status 502|ECONNRESET)/.test(reason)),
  );
  const kept = await startLoad({ ...run, keepAlive: true }).stop(200);
  assert.ok(kept.repeated > 0 && kept.lost < 8, JSON.stringify(kept));
  const gone = await startLoad({ addresses: ["127.0.0.1:1"] }).stop(10);
  assert.deepEqual(gone.reasons, { "127.0.0.1:1 through 127.0.0.1:1: ECONNREFUSED": 10 });
});

test("another status can be expected, also over https; an untrusted authority loses every request", async (t) => {
  const folder = await mkdtemp(join(tmpdir(), "k3s-lab-load-"));
  const { certificate: cert, key } = await labCertificate(["a.com"], folder);
  const server = createSecureServer({ cert, key }, (_, response) => response.writeHead(308).end());
  await new Promise<void>((ready) => server.listen(0, "127.0.0.1", ready));
  t.after(async () => {
    server.close();
    server.closeAllConnections();
    await rm(folder, { recursive: true });
  });
  const address = `127.0.0.1:${(server.address() as AddressInfo).port}`;
  const ask = async (host: string, authority: string, keepAlive: boolean) =>
    await startLoad({ addresses: [address], hosts: [host], authority, keepAlive, status: 308 }).stop(20);
  const own = await readFile(caFile(folder), "utf8");
  for (const keepAlive of [false, true]) {
    assert.deepEqual((await ask("a.com", own, keepAlive)).reasons, {});
    assert.equal((await ask("b.com", own, keepAlive)).lost, 20);
    assert.equal((await ask("a.com", rootCertificates[0] ?? "", keepAlive)).lost, 20);
  }
});

test("records when each lost request was sent, up to a thousand per reason", async () => {
  const reason = "127.0.0.1:1 through 127.0.0.1:1: ECONNREFUSED";
  // At ten a second the fifth request is not sent before 0.4 s, however fast or slow the computer is.
  const { lostAt, seconds } = await startLoad({ addresses: ["127.0.0.1:1"], rate: 10, concurrency: 1 }).stop(
    5,
  );
  const times = lostAt[reason] ?? [];
  assert.equal(times.length, 5);
  for (const [index, time] of times.entries())
    assert.ok(time >= index / 10 && time <= seconds, `request ${index} at ${time} of ${seconds} s`);
  const many = await startLoad({ addresses: ["127.0.0.1:1"], rate: 100_000 }).stop(1500);
  assert.deepEqual([many.reasons[reason], many.lostAt[reason]?.length], [1500, 1000]);
});

test("watches the connection of a waiting request, and shows only lost ones", async (t) => {
  const held = createServer((request, response) => {
    if (request.headers.host === "app2.com") setTimeout(() => response.end("{}"), 2000);
    else if (request.headers.host === "app1.com") response.writeHead(503).end();
    else response.end("{}");
  });
  await new Promise<void>((ready) => held.listen(0, "127.0.0.1", ready));
  t.after(() => {
    held.close();
    held.closeAllConnections();
  });
  const address = `127.0.0.1:${(held.address() as AddressInfo).port}`;
  const ports: number[] = [];
  const { lost } = await lossDuring(
    [address],
    6,
    async () => {},
    async (at, port) => {
      ports.push(port);
      return `waits at ${at}`;
    },
  );
  assert.ok(ports.length >= 4 && ports.every((port) => port > 1023), String(ports));
  assert.match(lost, /status 503.*; waits at 127/s);
});

test("shows the times of losses as spans", () => {
  assert.equal(spans([21.3, 22, 22.9, 26.1, 40, 41]), "21.3–22.9, 26.1, 40, 41 s");
  assert.equal(spans([1, 3, 5], 2), "1, 3 s and 1 later");
});

test("distinguishes losses on new and on kept connections", async (t) => {
  const server = createServer((_, response) => response.writeHead(broken ? 503 : 200).end("{}"));
  let broken = false;
  const address = await serve(t, server);
  assert.deepEqual(await lossDuring([address], 20, async () => {}), {
    happened: "requests lost: 0 of 20 by new connections, 0 of 20 by kept connections",
    lost: "nothing",
  });
  broken = true;
  const { happened, lost } = await lossDuring([address], 20, async () => {});
  assert.equal(happened, "requests lost: 20 of 20 by new connections, 20 of 20 by kept connections");
  assert.match(lost, /status 503, sent at [\d.]+(–[\d.]+)?.* s/);
  await assert.rejects(
    lossDuring([address], 1, () => Promise.reject(new Error("change broke"))),
    /change broke/,
  );
});
