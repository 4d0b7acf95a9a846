import assert from "node:assert/strict";
import { X509Certificate } from "node:crypto";
import { mkdtemp, readdir, readFile, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { LabError } from "../lib/errors.ts";
import { caFile, caKeyFile, findLabCertificate, labAuthority, labCertificate } from "./lab-ca.ts";

const day = 24 * 3600 * 1000;
const now = new Date();
const later = (days: number) => new Date(now.getTime() + days * day);

async function folderFor(t: TestContext): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), "k3s-lab-ca-"));
  t.after(() => rm(folder, { recursive: true }));
  return join(folder, "ca");
}

const modeOf = async (path: string): Promise<number> => (await stat(path)).mode & 0o777;

test("the authority is created once, and only its owner can read the key", async (t) => {
  const folder = await folderFor(t);
  const [one, two] = await Promise.all([labAuthority(folder), labAuthority(folder)]);
  assert.deepEqual(one, two);
  assert.deepEqual(await labAuthority(folder), one);
  assert.match(one.name, /^K3s Lab [0-9a-f]{8}$/);
  assert.equal(await modeOf(caKeyFile(folder)), 0o600);
  assert.equal(await modeOf(folder), 0o700);
  const { ca, fingerprint256 } = new X509Certificate(await readFile(caFile(folder)));
  assert.deepEqual([ca, fingerprint256], [true, one.fingerprint]);
  assert.ok(one.until > later(3640));
});

test("hosts keep their certificate until four months before it expires; a lookup creates nothing", async (t) => {
  const folder = await folderFor(t);
  const hosts = ["app.com", "*.app.com"] as const;
  assert.equal(await findLabCertificate(hosts, folder, now), undefined);
  await assert.rejects(stat(folder), /ENOENT/);

  const made = await labCertificate(hosts, folder, now);
  const { certificate } = await labAuthority(folder);
  const read = new X509Certificate(made.certificate);
  assert.ok(read.verify(new X509Certificate(certificate).publicKey));
  assert.equal(read.subjectAltName, "DNS:app.com, DNS:*.app.com");
  assert.deepEqual(await labCertificate(hosts, folder, later(240)), made);
  assert.deepEqual(await findLabCertificate(hosts, folder, later(240)), made);
  assert.equal(await findLabCertificate(hosts, folder, later(250)), undefined);
  // A clock that is put back.
  assert.equal(await findLabCertificate(hosts, folder, later(-1)), undefined);

  const renewed = await labCertificate(hosts, folder, later(250));
  assert.notEqual(renewed.certificate, made.certificate);
  assert.ok(new Date(new X509Certificate(renewed.certificate).validTo) > later(600));
  assert.equal((await labAuthority(folder)).certificate, certificate);
  assert.equal(await modeOf(join(folder, "hosts")), 0o700);
});

test("rejects a certificate of another authority", async (t) => {
  const folder = await folderFor(t);
  const made = await labCertificate(["app.com"], folder);
  for (const file of [caFile(folder), caKeyFile(folder)]) await rm(file);
  assert.equal(await findLabCertificate(["app.com"], folder), undefined);
  await labAuthority(folder);
  assert.equal(await findLabCertificate(["app.com"], folder), undefined);
  assert.notEqual((await labCertificate(["app.com"], folder)).certificate, made.certificate);
});

test("replaces a certificate without a matching key", async (t) => {
  const folder = await folderFor(t);
  const made = await labCertificate(["app.com"], folder);
  const [file = ""] = await readdir(join(folder, "hosts"));
  const other = await labCertificate(["other.com"], folder);
  for (const key of [other.key, "-----BEGIN PRIVATE KEY-----\n"]) {
    await writeFile(join(folder, "hosts", file), `${key}${made.certificate}`);
    assert.equal(await findLabCertificate(["app.com"], folder), undefined, key.slice(0, 30));
  }
  await labCertificate(["app.com"], folder);
  assert.ok(await findLabCertificate(["app.com"], folder));
});

test("an incomplete or expiring authority is never replaced silently", async (t) => {
  const refuses = async (damage: (folder: string) => Promise<void>, expected: RegExp, at = now) => {
    const folder = await folderFor(t);
    await labCertificate(["app.com"], folder, now);
    await damage(folder);
    for (const attempt of [() => labAuthority(folder, at), () => labCertificate(["app.com"], folder, at)])
      await assert.rejects(attempt, (error) => {
        assert.ok(error instanceof LabError && error.exitCode === 2);
        assert.match(error.message, expected);
        assert.ok(error.message.includes(folder));
        return true;
      });
  };
  await refuses((folder) => rm(caKeyFile(folder)), /ca\.key is missing/);
  await refuses((folder) => writeFile(caKeyFile(folder), "x"), /ca\.key contains no key/);
  await refuses((folder) => writeFile(caFile(folder), "x"), /ca\.crt contains no certificate/);
  await refuses(async (folder) => {
    const other = await folderFor(t);
    await labAuthority(other);
    await writeFile(caKeyFile(folder), await readFile(caKeyFile(other)));
  }, /ca\.key is not the key of .*ca\.crt/);
  await refuses(async () => {}, /ends on \d{4}-\d\d-\d\d, too soon/, later(3400));
});
