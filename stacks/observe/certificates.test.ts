import assert from "node:assert/strict";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { certificateFilesOf, refuseCertificates } from "./certificates.ts";
import { labCertificate } from "./lab-ca.ts";

const directory = await mkdtemp(join(tmpdir(), "k3s-lab-certificates-"));
after(() => rm(directory, { recursive: true }));
const { certificate, key } = await labCertificate(["app.com"], join(directory, "ca"));
await writeFile(join(directory, "web.crt"), certificate);
await writeFile(join(directory, "web.key"), key, { mode: 0o600 });
const tls = { certificate: "web.crt", key: "web.key" };

test("a certificate must match its app's host, and is named by its key in the stack file", async () => {
  const plain = { host: "plain.com" };
  const good = { apps: [plain, { host: "app.com", tls }, { host: "lab.com", tls: {} }] };
  await refuseCertificates("apps", good, directory);
  const bad = [plain, { host: "other.com", tls }];
  await assert.rejects(
    refuseCertificates("apps", { apps: bad }, directory),
    /^LabError: Pulumi\.apps\.yaml: k3s-lab:apps\[1\]\.tls\.certificate: web\.crt .*for other\.com/,
  );
  const alias = { apps: [{ host: "app.com", aliases: ["www.app.com"], tls }] };
  await assert.rejects(refuseCertificates("apps", alias, directory), /apps\[0\]\.tls.* for www\.app\.com/);
  const shared = { apps: bad, tls };
  await assert.rejects(
    refuseCertificates("apps-b", shared, directory),
    /^LabError: Pulumi\.apps-b\.yaml: k3s-lab:tls\.certificate: web\.crt/,
  );
});

test("records what a stack's certificates were made from", () => {
  assert.deepEqual(certificateFilesOf([{ host: "a.com" }]), []);
  assert.deepEqual(certificateFilesOf([{ host: "a.com", tls }]), ["web.crt", "web.key"]);
  assert.deepEqual(certificateFilesOf([{ host: "a.com", tls: {} }]), []);
});
