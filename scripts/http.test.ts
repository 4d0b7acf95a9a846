import assert from "node:assert/strict";
import { createServer, type RequestListener } from "node:http";
import type { AddressInfo } from "node:net";
import { type TestContext, test } from "node:test";
import { get } from "./http.ts";

async function serve(t: TestContext, answer: RequestListener): Promise<string> {
  const server = createServer(answer);
  await new Promise<void>((ready) => server.listen(0, "127.0.0.1", ready));
  t.after(() => {
    server.close();
    server.closeAllConnections();
  });
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

test("sends the Host header that it is given, and reads the whole body", async (t) => {
  const url = await serve(t, (request, response) => {
    response.statusCode = 418;
    response.write(`${request.headers.host} `);
    response.end("ü".repeat(100_000));
  });
  assert.deepEqual(await get(url, { headers: { host: "app1.com" } }), {
    status: 418,
    body: `app1.com ${"ü".repeat(100_000)}`,
  });
});

test("without a Host header it names the address", async (t) => {
  const url = await serve(t, (request, response) => response.end(request.headers.host));
  assert.equal(`http://${(await get(url)).body}`, url);
});

test("ends at the deadline, before the headers", async (t) => {
  const url = await serve(t, () => {});
  await assert.rejects(get(url, { timeout: 50 }), /^Error: timed out after 0\.05 s$/);
});

test("ends at the deadline, in the middle of a body", async (t) => {
  const url = await serve(t, (_, response) => void response.write("a"));
  await assert.rejects(get(url, { timeout: 50 }), /^Error: timed out after 0\.05 s$/);
});

test("a body that is cut off is no answer", async (t) => {
  const url = await serve(t, (_, response) => {
    response.writeHead(200, { "content-length": 10 });
    response.write("half", () => response.destroy());
  });
  await assert.rejects(get(url), /connection closed without an answer|aborted/);
});

test("says that nothing listens", async () => {
  const server = createServer();
  await new Promise<void>((ready) => server.listen(0, "127.0.0.1", ready));
  const { port } = server.address() as AddressInfo;
  await new Promise((closed) => server.close(closed));
  await assert.rejects(get(`http://127.0.0.1:${port}`), /^Error: connection refused$/);
});
