import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { createServer } from "node:http";
import { createServer as createSecureServer } from "node:https";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import type { HttpAnswer } from "../../stacks/lib/http.ts";
import { serve } from "../../stacks/lib/test-server.ts";
import type { App } from "../../stacks/model/config.ts";
import { labAuthority, labCertificate } from "../../stacks/observe/lab-ca.ts";
import { describeAnswer, type Get, getWithin, podsAnswering, unknownHost, whoAnswers } from "./ingress.ts";

const app = (name: string, replicas: number, host?: string): App => ({
  namespace: "default",
  name,
  replicas,
  version: "1.0.0",
  host,
});
const answer = (name: string, pod: string): HttpAnswer => ({
  status: 200,
  body: JSON.stringify({ app: name, version: "1.0.0", pod }),
});

/** An Ingress controller on loopback that routes by host, each app's pods in turn. */
async function ingress(t: TestContext, routes: Record<string, readonly string[]>) {
  const asked: string[] = [];
  const server = createServer((request, response) => {
    const host = `${request.headers.host ?? ""}${request.url === "/" ? "" : request.url}`;
    assert.equal(request.headers.accept, "application/json");
    asked.push(host);
    const [name = "", ...pods] = routes[host] ?? routes["*"] ?? [];
    const { status, body } = answer(name, pods[asked.length % pods.length] ?? "");
    response.writeHead(name ? status : 404).end(name ? body : "404 page not found");
  });
  return { address: await serve(t, server), asked };
}

test("requests a known host, an unknown one and none, over real HTTP", async (t) => {
  const { address, asked } = await ingress(t, { "app2.com": ["app2", "a", "b", "c"], "*": ["app3", "z"] });
  const send = getWithin(3000);
  assert.equal(await whoAnswers(send, address, "app2.com"), "app2 1.0.0");
  assert.equal(await whoAnswers(send, address, unknownHost), "app3 1.0.0");
  assert.equal(await whoAnswers(send, address, undefined), "app3 1.0.0");
  // Without a host a browser sends the address.
  assert.deepEqual(asked, ["app2.com", unknownHost, address]);
  assert.equal(await podsAnswering(send, address, app("app2", 3, "app2.com")), "3 different pods");
  assert.equal(await podsAnswering(send, address, app("app3", 1)), "1 pod");
});

test("requests an app at its own paths of a shared host", async (t) => {
  const { address } = await ingress(t, { "app.com": ["web", "a"], "app.com/api": ["api", "b", "c"] });
  const send = getWithin(3000);
  assert.equal(await whoAnswers(send, address, "app.com"), "web 1.0.0");
  assert.equal(await whoAnswers(send, address, "app.com", "/api"), "api 1.0.0");
  const api = { ...app("api", 2, "app.com"), paths: [{ path: "/api", match: "prefix" as const }] };
  assert.equal(await podsAnswering(send, address, api), "2 different pods");
});

test("over https, the certificate must be for the app's host and signed by the expected authority", async (t) => {
  const folder = await mkdtemp(join(tmpdir(), "k3s-lab-ingress-"));
  t.after(() => rm(folder, { recursive: true }));
  const { certificate, key } = await labCertificate(["app.com"], folder);
  const [own, other] = [await labAuthority(folder), await labAuthority(join(folder, "other"))];
  const server = createSecureServer({ key, cert: certificate }, (_, response) => {
    response.end(answer("web", "a").body);
  });
  await new Promise<void>((ready) => server.listen(0, "127.0.0.1", ready));
  t.after(() => server.close());
  const address = `127.0.0.1:${(server.address() as AddressInfo).port}`;
  const ask = (authority: string, host: string) => whoAnswers(getWithin(3000, authority), address, host);
  assert.equal(await ask(own.certificate, "app.com"), "web 1.0.0");
  // One of the user's own stands for itself.
  assert.equal(await ask(certificate, "app.com"), "web 1.0.0");
  assert.match(await ask(other.certificate, "app.com"), /^no answer: .*certificate/);
  assert.match(await ask(own.certificate, "other.com"), /^no answer: .*other\.com/);
});

test("gives up on a pod that never answers after a limited number of requests", async () => {
  let requests = 0;
  const send: Get = async () => answer("app2", requests++ % 2 ? "a" : "b");
  assert.equal(await podsAnswering(send, "address", app("app2", 3, "app2.com")), "2 different pods");
  assert.equal(requests, 3 * 20);
});

test("ignores another app's pods", async () => {
  const send: Get = async () => answer("app3", "z");
  assert.equal(await podsAnswering(send, "address", app("app2", 1, "app2.com")), "0 different pods");
});

test("distinguishes apps of the same name in other namespaces", async () => {
  const elsewhere = {
    ...answer("app2", "a"),
    body: JSON.stringify({ ...JSON.parse(answer("app2", "a").body), namespace: "dev" }),
  };
  assert.equal(describeAnswer(elsewhere), "app2 1.0.0 in dev");
  const send: Get = async () => elsewhere;
  const own = app("app2", 1, "app2.com");
  assert.equal(await podsAnswering(send, "address", own), "0 different pods");
  assert.equal(await podsAnswering(send, "address", { ...own, namespace: "dev" }), "1 pod");
});

test("without an answer it keeps the reason and does not retry over and over", async () => {
  let requests = 0;
  const send: Get = async () => {
    requests++;
    throw new Error("connection refused");
  };
  assert.equal(await whoAnswers(send, "address", "app2.com"), "no answer: connection refused");
  assert.equal(
    await podsAnswering(send, "address", app("app2", 3, "app2.com")),
    "no answer: connection refused",
  );
  assert.equal(requests, 1 + 3);
});

test("an answer counts only if it names the app", () => {
  assert.equal(describeAnswer(answer("app1", "a")), "app1 1.0.0");
  assert.equal(describeAnswer({ ...answer("app1", "a"), status: 500 }), "status 500");
  assert.equal(describeAnswer({ status: 404, body: "404 page not found" }), "status 404");
  assert.equal(describeAnswer({ status: 200, body: "{}" }), "status 200");
  assert.equal(describeAnswer({ status: 200, body: "<html>" }), "status 200");
});
