import assert from "node:assert/strict";
import { X509Certificate } from "node:crypto";
import { mkdtemp, rm, stat } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import * as pulumi from "@pulumi/pulumi";
import { labAuthority } from "../observe/lab-ca.ts";
import { mockEngine, resourcesOf } from "./fake-engine.ts";

await mockEngine();
const { CertificateAuthority } = await import("./certificate-authority.ts");

async function folderFor(t: TestContext): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), "k3s-lab-ca-"));
  t.after(() => rm(folder, { recursive: true }));
  return join(folder, "ca");
}

interface SecretInputs {
  readonly metadata: object;
  readonly type: string;
  readonly stringData: { readonly value: Readonly<Record<"tls.crt" | "tls.key", string>> };
}

/** The Secrets of a certificate, as the engine gets them; one that is named otherwise is there twice. */
async function issueTwice(folder: string): Promise<readonly SecretInputs[]> {
  const made = await resourcesOf(() => {
    const authority = new CertificateAuthority("ca", { folder });
    for (const secretName of ["web-tls", "api-tls"])
      authority.issue(secretName, { secretName, namespace: "dev", hosts: ["app.com", "*.app.com"] });
  });
  return made.map(({ inputs }) => inputs as unknown as SecretInputs);
}

async function issue(folder: string): Promise<SecretInputs> {
  const [secret] = await issueTwice(folder);
  assert.ok(secret);
  return secret;
}

test("a certificate is a Secret for the Ingress, and secret in Pulumi's state", async (t) => {
  const folder = await folderFor(t);
  const { metadata, type, stringData } = await issue(folder);
  assert.deepEqual(metadata, {
    name: "web-tls",
    namespace: "dev",
    labels: { "app.kubernetes.io/part-of": "k3s-lab" },
  });
  assert.equal(type, "kubernetes.io/tls");
  const leaf = new X509Certificate(stringData.value["tls.crt"]);
  const { certificate } = await labAuthority(folder);
  assert.ok(leaf.verify(new X509Certificate(certificate).publicKey));
  assert.ok(leaf.checkHost("a.app.com"));
  assert.match(stringData.value["tls.key"], /^-----BEGIN PRIVATE KEY-----/);
  // The same again: nothing changes.
  assert.deepEqual((await issue(folder)).stringData, stringData);
});

test("apps that share a host share its certificate from the first run", async (t) => {
  const folder = await folderFor(t);
  const [web, api] = await issueTwice(folder);
  assert.ok(web && api);
  assert.deepEqual(web.stringData, api.stringData);
  assert.deepEqual(
    (await issueTwice(folder)).map((one) => one.stringData),
    [web.stringData, api.stringData],
  );
});

test("a preview creates no certificate and no authority", async (t) => {
  const folder = await folderFor(t);
  const isDryRun = t.mock.method(pulumi.runtime, "isDryRun", () => true);
  assert.equal(isDryRun.mock.callCount(), 0);
  await issue(folder).catch(() => {});
  assert.ok(isDryRun.mock.callCount() > 0);
  await assert.rejects(stat(folder), /ENOENT/);
});
