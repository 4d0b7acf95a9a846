import assert from "node:assert/strict";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { createServer, type RequestListener } from "node:http";
import { Agent, createServer as createTlsServer } from "node:https";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { execa } from "execa";
import { get } from "./http.ts";
import { serve } from "./test-server.ts";

async function answering(t: TestContext, answer: RequestListener): Promise<string> {
  const server = createServer(answer);
  return `http://${await serve(t, server)}`;
}

test("sends the given Host header and reads the whole body", async (t) => {
  const url = await answering(t, (request, response) => {
    response.statusCode = 418;
    response.write(`${request.headers.host} `);
    response.end("ü".repeat(100_000));
  });
  assert.deepEqual(await get(url, { headers: { host: "app1.com" } }), {
    status: 418,
    body: `app1.com ${"ü".repeat(100_000)}`,
  });
});

test("without a Host header, names the address", async (t) => {
  const url = await answering(t, (request, response) => response.end(request.headers.host));
  assert.equal(`http://${(await get(url)).body}`, url);
});

test("times out before the headers", async (t) => {
  const url = await answering(t, () => {});
  await assert.rejects(get(url, { timeout: 50 }), /^Error: timed out after 0\.05 s$/);
});

test("times out in the middle of a body", async (t) => {
  const url = await answering(t, (_, response) => void response.write("a"));
  await assert.rejects(get(url, { timeout: 50 }), /^Error: timed out after 0\.05 s$/);
});

test("a truncated body is an error", async (t) => {
  const url = await answering(t, (_, response) => {
    response.writeHead(200, { "content-length": 10 });
    response.write("half", () => response.destroy());
  });
  await assert.rejects(get(url), /connection closed without an answer|aborted/);
});

test("reports that nothing listens", async () => {
  await assert.rejects(get("http://127.0.0.1:1"), /^Error: connection refused$/);
});

for (const [what, dates, said] of [
  ["is not valid yet", ["20980101000000Z", "20990101000000Z"], /its certificate is not valid yet by .*clock/],
  ["has expired", ["20000101000000Z", "20010101000000Z"], /its certificate has expired by .*clock/],
] as const)
  test(`suggests comparing clocks if a certificate ${what}`, async (t) => {
    const folder = await mkdtemp(join(tmpdir(), "certificate-"));
    t.after(() => rm(folder, { recursive: true }));
    const settings = `[ca]\ndefault_ca=it\n[it]\ndatabase=index\nrand_serial=yes\ndefault_md=sha256\npolicy=names\nx509_extensions=it_is\n[names]\ncommonName=supplied\n[it_is]\nsubjectAltName=IP:127.0.0.1\nbasicConstraints=CA:true\n`;
    await writeFile(join(folder, "settings"), settings);
    await writeFile(join(folder, "index"), "");
    const openssl = (...args: string[]) => execa("openssl", args, { cwd: folder });
    await openssl(
      ..."req -new -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=it".split(" "),
      ..."-keyout key -out request".split(" "),
    );
    const [from, to] = dates;
    await openssl(
      ..."ca -selfsign -batch -notext -config settings -keyfile key -in request -out made -outdir .".split(
        " ",
      ),
      ...["-startdate", from, "-enddate", to],
    );
    const [key, cert] = await Promise.all(["key", "made"].map((file) => readFile(join(folder, file))));
    const server = createTlsServer({ key, cert });
    await new Promise<void>((ready) => server.listen(0, "127.0.0.1", ready));
    t.after(() => server.close());
    const { port } = server.address() as AddressInfo;
    await assert.rejects(get(`https://127.0.0.1:${port}`, { agent: new Agent({ ca: cert }) }), said);
  });
