import assert from "node:assert/strict";
import { generateKeyPairSync, X509Certificate } from "node:crypto";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { createServer, request } from "node:https";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { execa } from "execa";
import { makeCertificate } from "./x509.ts";

const keys = () => generateKeyPairSync("ec", { namedCurve: "P-256" });
const day = 24 * 3600 * 1000;
const from = new Date(Date.now() - day);
const authority = keys();
const issuer = { subject: "Test CA", ...authority };
const caPem = makeCertificate({
  subject: issuer.subject,
  publicKey: authority.publicKey,
  issuer,
  from,
  until: new Date(Date.UTC(2055, 0, 2, 3, 4, 5)),
});
const server = keys();
const hosts = ["app.com", "*.app.com", "127.0.0.1"];
const leafPem = makeCertificate({
  subject: "app.com",
  publicKey: server.publicKey,
  issuer,
  from,
  until: new Date(Date.now() + day),
  hosts,
});

test("Node.js reads the same fields", () => {
  const [ca, leaf] = [new X509Certificate(caPem), new X509Certificate(leafPem)];
  assert.equal(ca.ca, true);
  assert.equal(ca.subject, "O=K3s Lab\nCN=Test CA");
  assert.equal(ca.issuer, ca.subject);
  assert.equal(new Date(ca.validTo).toISOString(), "2055-01-02T03:04:05.000Z");
  assert.ok(ca.verify(authority.publicKey));
  assert.equal(leaf.ca, false);
  assert.ok(leaf.checkIssued(ca));
  assert.ok(leaf.verify(authority.publicKey));
  assert.ok(leaf.checkPrivateKey(server.privateKey));
  assert.equal(leaf.subjectAltName, "DNS:app.com, DNS:*.app.com, IP Address:127.0.0.1");
  assert.deepEqual(leaf.keyUsage, ["1.3.6.1.5.5.7.3.1"]);
  assert.ok(leaf.checkHost("app.com") && leaf.checkHost("a.app.com"));
  assert.equal(leaf.checkHost("b.com"), undefined);
  assert.notEqual(leaf.serialNumber, ca.serialNumber);
});

test("OpenSSL accepts it in strict mode", async () => {
  const folder = await mkdtemp(join(tmpdir(), "k3s-lab-x509-"));
  try {
    const [ca, leaf] = [join(folder, "ca.crt"), join(folder, "leaf.crt")];
    await writeFile(ca, caPem);
    await writeFile(leaf, leafPem);
    const how = ["-x509_strict", "-purpose", "sslserver", "-verify_hostname", "a.app.com"];
    const { stdout } = await execa("openssl", ["verify", ...how, "-CAfile", ca, leaf]);
    assert.match(stdout, /leaf\.crt: OK$/);
  } finally {
    await rm(folder, { recursive: true });
  }
});

test("only a client that trusts the authority and uses the right name can connect", async (t) => {
  const key = server.privateKey.export({ type: "pkcs8", format: "pem" });
  const https = createServer({ key, cert: leafPem }, (_, response) => response.end("ok"));
  await new Promise<void>((ready) => https.listen(0, "127.0.0.1", ready));
  t.after(() => https.close());
  const { port } = https.address() as AddressInfo;
  const ask = (servername: string, ca?: string) =>
    new Promise<string>((done) => {
      request({ port, host: "127.0.0.1", servername, ...(ca ? { ca } : {}) }, (response) => {
        response.resume();
        done(String(response.statusCode));
      })
        .on("error", (error: NodeJS.ErrnoException) => done(error.code ?? ""))
        .end();
    });
  assert.equal(await ask("app.com", caPem), "200");
  assert.equal(await ask("app.com"), "UNABLE_TO_VERIFY_LEAF_SIGNATURE");
  assert.equal(await ask("other.com", caPem), "ERR_TLS_CERT_ALTNAME_INVALID");
});
