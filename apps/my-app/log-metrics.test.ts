import assert from "node:assert/strict";
import { once } from "node:events";
import { appendFile, mkdtemp, rename, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { createMyApp } from "./server.ts";

test("turns the sidecar's access log into metrics, across rotations and partial lines", async (t) => {
  const folder = await mkdtemp(join(tmpdir(), "log-metrics-"));
  const logFile = join(folder, "access.log");
  const neighbour = createServer((_, response) => response.end("ok")).listen(0, "127.0.0.1");
  await once(neighbour, "listening");
  const neighbourPort = (neighbour.address() as AddressInfo).port;
  const config = {
    app: "log",
    version: "1",
    pod: "p",
    node: null,
    namespace: null,
    podIp: null,
    port: 0,
    lingerMs: 0,
  };
  const { metricsServer: server, stop } = createMyApp(
    "log-metrics",
    config,
    { config: folder, secret: folder },
    { logFile, neighbourPort },
  );
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  t.after(async () => {
    await stop();
    neighbour.close();
    await rm(folder, { recursive: true });
  });
  const base = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  const metrics = async () => {
    const lines = (await (await fetch(`${base}/metrics`)).text()).split("\n");
    return lines.filter((line) => /^(access_log|neighbour)/.test(line)).join(" ");
  };
  assert.equal(await metrics(), "neighbour_answers 1");
  await writeFile(logFile, '{"path":"/ü","status":200}\n{"status":404}\n{"sta');
  const first = 'access_log_requests_total{code="200"} 1 access_log_requests_total{code="404"} 1';
  assert.equal(await metrics(), `${first} neighbour_answers 1`);
  await appendFile(logFile, 'tus":200}\n');
  assert.match(await metrics(), /code="200"} 2 /);
  // What was written last before the log is put aside counts too.
  await appendFile(logFile, '{"status":404}\n');
  await rename(logFile, `${logFile}.1`);
  await writeFile(logFile, '{"status":503}\n');
  neighbour.closeAllConnections();
  neighbour.close();
  assert.match(await metrics(), /code="200"} 2 .*code="404"} 2 .*code="503"} 1 neighbour_answers 0$/);
  assert.match(await (await fetch(`${base}/metrics`)).text(), /^http_requests_in_flight /m);
  assert.equal((await fetch(base)).status, 404);
});
