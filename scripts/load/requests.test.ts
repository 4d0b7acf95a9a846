import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { createServer as createPlainServer } from "node:http";
import { createServer } from "node:https";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { setTimeout as pause } from "node:timers/promises";
import { serve } from "../../stacks/lib/test-server.ts";
import { labCertificate } from "../../stacks/observe/lab-ca.ts";
import { startRequests } from "./requests.ts";

const folder = await mkdtemp(join(tmpdir(), "k3s-lab-requests-"));
after(() => rm(folder, { recursive: true }));

test("sends https over kept connections and verifies the certificate for the host", async (t) => {
  const [made, other] = await Promise.all(
    ["ca", "other"].map((name) => labCertificate(["app.test"], join(folder, name))),
  );
  assert.ok(made && other);
  let connections = 0;
  const server = createServer({ cert: made.certificate, key: made.key }, ({ headers }, response) => {
    response.writeHead(headers.host === "app.test" ? 200 : 404).end("{}");
  }).on("secureConnection", () => {
    connections += 1;
  });
  const address = await serve(t, server);
  const ask = (host: string, authority: string) =>
    startRequests({
      targets: [{ address, host, authority }],
      keepAlive: true,
      concurrency: 2,
      rate: 10_000,
    }).stop(50);
  const { total, lost } = await ask("app.test", made.certificate);
  assert.deepEqual([total, lost], [50, 0]);
  assert.ok(connections <= 2, `${connections} connections`);
  for (const [host, authority] of [
    ["wrong.test", made.certificate],
    ["app.test", other.certificate],
  ] as const)
    assert.equal((await ask(host, authority)).lost, 50, host);
});

test("sends nothing more once it is ended", async () => {
  const began = performance.now();
  const load = startRequests({ targets: [{ address: "127.0.0.1:1", host: "a" }], rate: 1 });
  const { total } = await load.stop();
  assert.ok(total <= 1 && performance.now() - began < 900, `${total} requests`);
});

test("does not catch up after a stall: the rate is never exceeded", async (t) => {
  const came: number[] = [];
  let isSilent = true;
  const held: (() => void)[] = [];
  const server = createPlainServer((_, response) => {
    came.push(performance.now());
    if (isSilent) held.push(() => response.end("{}"));
    else response.end("{}");
  });
  const address = await serve(t, server);
  const load = startRequests({
    targets: [{ address, host: "a" }],
    keepAlive: true,
    concurrency: 4,
    rate: 50,
  });
  await pause(1000);
  isSilent = false;
  for (const answer of held) answer();
  const since = performance.now();
  await pause(500);
  await load.stop();
  const sent = came.filter((at) => at >= since && at < since + 500).length;
  assert.ok(sent > 5 && sent <= 25 + 4, `${sent} requests in half a second at a rate of 50`);
});
