import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { createServer, type IncomingMessage } from "node:http";
import type { AddressInfo } from "node:net";
import { type TestContext, test } from "node:test";
import { execa } from "execa";
import { serve } from "../../stacks/lib/test-server.ts";
import { look } from "./in-pod.ts";
import { parseAnswers, program } from "./inside.ts";

type Body = string | undefined | ((request: IncomingMessage) => string);

async function answering(t: TestContext, body: Body, status = 200): Promise<string> {
  const server = createServer((request, response) => {
    response.statusCode = status;
    if (body !== undefined) response.end(typeof body === "string" ? body : body(request));
  });
  return `http://${await serve(t, server)}/`;
}

test("the program runs standalone, as in a pod", async (t) => {
  const url = await answering(t, '{"pod":"app2-a"}');
  const file = import.meta.filename;
  const more = { counted: { [url]: 3 }, files: [file, "/nowhere"] };
  const questions = JSON.stringify({ names: ["127.0.0.1"], urls: [url], barred: [], ...more });
  const { stdout } = await execa(process.execPath, ["--eval", program(), questions]);
  assert.deepEqual(parseAnswers(stdout), {
    names: { "127.0.0.1": "127.0.0.1" },
    urls: { [url]: "app2-a" },
    counts: { [url]: { "app2-a": 3 } },
    files: { [file]: await readFile(file, "utf8"), "/nowhere": "ENOENT" },
  });
});

test("uses a connection per request to count pods, since kube-proxy balances connections", async (t) => {
  const url = await answering(t, ({ socket }) => `{"pod":"${socket.remotePort}"}`);
  const { counts } = await look({ names: [], urls: [url], barred: [], counted: { [url]: 40 } }, 60_000, 200);
  assert.deepEqual(Object.values(counts[url] ?? {}), Array(40).fill(1));
});

test("reports another answer by its status and a failed request by its reason", async (t) => {
  const other = await answering(t, "404 page not found", 404);
  const silent = await answering(t, undefined);
  const closed = createServer();
  await new Promise<void>((ready) => closed.listen(0, "127.0.0.1", ready));
  const gone = `http://127.0.0.1:${(closed.address() as AddressInfo).port}/`;
  await new Promise((done) => closed.close(done));
  const { urls } = await look({ names: [], urls: [other, gone], barred: [] }, 60_000, 200);
  assert.equal(urls[other], "404");
  assert.equal(urls[gone], "ECONNREFUSED");
  assert.match(
    (await look({ names: [], urls: [silent], barred: [] }, 200, 200)).urls[silent] ?? "",
    /timeout/,
  );
});

test("gives up sooner on what must not answer, and reports it if it does", async (t) => {
  const silent = await answering(t, undefined);
  const open = await answering(t, '{"pod":"app2-a"}');
  const began = performance.now();
  const { urls } = await look({ names: [], urls: [], barred: [silent] }, 60_000, 200);
  assert.ok(performance.now() - began < 30_000);
  assert.match(urls[silent] ?? "", /timeout/);
  assert.equal((await look({ names: [], urls: [], barred: [open] }, 200, 60_000)).urls[open], "app2-a");
});

test("reports why a name does not resolve", async () => {
  const { names } = await look({ names: ["not a name"], urls: [], barred: [] }, 2000, 2000);
  assert.match(names["not a name"] ?? "", /^E[A-Z_]+$|no answer/);
});

test("rejects any other output", () => {
  assert.throws(() => parseAnswers("sh: node: not found"), /not understood/);
  assert.throws(() => parseAnswers('{"names":{}}'), /not understood/);
});
