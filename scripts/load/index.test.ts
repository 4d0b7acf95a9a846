import assert from "node:assert/strict";
import { createServer, type RequestListener } from "node:http";
import { type TestContext, test } from "node:test";
import { setTimeout as pause } from "node:timers/promises";
import { serve } from "../../stacks/lib/test-server.ts";
import type { App } from "../../stacks/model/config.ts";
import { type Moment, runLoad } from "./index.ts";
import { momentLine, momentLines, outcomeLines } from "./render.ts";

const api: App = {
  ...{ name: "api", namespace: "my-app", host: "my-app.com", version: "1.0.0" },
  ...{ replicas: 2, autoscaling: { min: 2, max: 4, cpu: 80 } },
};
const admin: App = { name: "admin", namespace: "my-app", version: "1.0.0", replicas: 1 };
const size = { duration: 1, rate: 100, concurrency: 4 };

async function answering(t: TestContext, answer: RequestListener): Promise<string> {
  const server = createServer(answer);
  return serve(t, server);
}

/** A load, on pods that are as many as is said, look by look; the last number stays. */
async function load(
  address: string,
  counts: readonly number[],
  more: { readonly signal?: AbortSignal; readonly duration?: number } = {},
) {
  const moments: Moment[] = [];
  let looks = 0;
  const look = async () => {
    const wanted = counts[Math.min(looks++, counts.length - 1)] ?? 0;
    const common = { namespace: "my-app" };
    return [
      { ...common, app: "api", wanted, ready: wanted, cpu: wanted * 30 },
      { ...common, app: "admin", wanted: 1, ready: 1 },
    ];
  };
  const outcome = await runLoad({
    ...{ ...size, timeout: 2000, signal: new AbortController().signal, ...more },
    targets: [{ address, host: "my-app.com" }],
    apps: [api, admin],
    look,
    tell: (moment) => moments.push(moment),
    interval: 100,
  });
  return { outcome, moments };
}

test("a load keeps to its rate and lasts until the added pods are gone", async (t) => {
  const address = await answering(t, (_, response) => response.end("{}"));
  const { outcome, moments } = await load(address, [2, 2, 3, ...Array<number>(14).fill(4), 3, 2]);
  const { requests, failed, seconds, latency, apps } = outcome;
  assert.equal(failed, 0);
  assert.ok(requests <= size.rate * seconds + size.concurrency, `${requests} requests in ${seconds} s`);
  assert.ok(requests > 10 && latency && latency.p50 <= latency.p99, JSON.stringify(outcome));
  assert.deepEqual(apps, [
    {
      ...{ app: "api", namespace: "my-app", replicas: { before: 2, most: 4, after: 2 } },
      cpu: { target: 80, most: 120 },
    },
    { app: "admin", namespace: "my-app", replicas: { before: 1, most: 1, after: 1 } },
  ]);
  assert.deepEqual([moments.at(0)?.isOn, moments.at(-1)?.isOn], [true, false]);
  assert.match(
    outcomeLines(outcome),
    /0 errors.*\napi: replicas 2, 4 at most, 2 at the end; CPU 120 % at most, target 80 %\nadmin: replicas 1 throughout$/,
  );
});

test("failed requests are counted by reason, and an abort takes effect at once", async (t) => {
  let asked = 0;
  const address = await answering(t, (_, response) => {
    asked += 1;
    response.writeHead(asked % 2 ? 200 : 503).end();
  });
  const stop = new AbortController();
  const began = performance.now();
  const running = load(address, [2, 4], { signal: stop.signal, duration: 600 });
  setTimeout(() => stop.abort(), 400);
  const { outcome } = await running;
  assert.ok(performance.now() - began < 5000);
  const { requests, failed, reasons } = outcome;
  assert.ok(failed > 0 && failed < requests);
  assert.deepEqual(reasons, { [`my-app.com through ${address}: status 503`]: failed });
});

test("a silent cluster delays neither the end of a load nor an abort", async (t) => {
  const address = await answering(t, (_, response) => response.end("{}"));
  const stop = new AbortController();
  const pods = [{ app: "api", namespace: "my-app", wanted: 4, ready: 4 }];
  let looks = 0;
  const silent = new Promise<typeof pods>(() => {});
  const moments: Moment[] = [];
  const began = performance.now();
  const running = runLoad({
    ...{
      ...size,
      timeout: 2000,
      interval: 50,
      signal: stop.signal,
      tell: (one: Moment) => moments.push(one),
    },
    targets: [{ address, host: "my-app.com" }],
    apps: [api],
    look: () => (looks++ === 0 ? Promise.resolve(pods) : silent),
  });
  setTimeout(() => stop.abort(), 2000);
  const outcome = await Promise.race([running, pause(4000, undefined, { ref: false })]);
  assert.ok(outcome, "it goes on");
  assert.ok(outcome.seconds < 1.5, `${outcome.seconds} s of requests`);
  assert.ok(performance.now() - began < 3500);
  assert.ok(moments.length > 2, "how the requests go is told meanwhile");
});

test("progress is shown as a table or as one line", () => {
  const figures = {
    requests: 9,
    failed: 1,
    perSecond: 49.8,
    latency: { p50: 3, p95: 8.5, p99: 20, max: 41 },
  };
  const pods = [
    { app: "api", namespace: "my-app", wanted: 3, ready: 2, cpu: undefined },
    { app: "admin", namespace: "my-app", wanted: 1, ready: 1 },
  ];
  const moment = { seconds: 12.3, isOn: true, figures, pods };
  const whole = { duration: 60, rate: 50, concurrency: 8 };
  assert.equal(
    momentLine(moment, [api, admin], whole),
    "12 of 60 s; 49.8 requests/s, p50 3 ms, p95 8.5 ms, p99 20 ms, 1 error; api 2 of 3 ready, CPU not measured of 80 %; admin 1 of 1 ready",
  );
  assert.deepEqual(
    momentLines({ ...moment, isOn: false }, [api, admin], whole)
      .split("\n")
      .slice(-3),
    [
      "APP    REPLICAS  READY  MAY BE  CPU",
      "api    3         2      2 to 4  not measured of 80 %",
      "admin  1         1      fixed",
    ],
  );
});
