import assert from "node:assert/strict";
import { createPrivateKey } from "node:crypto";
import { chmod, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { LabError } from "../lib/errors.ts";
import { labCertificate } from "./lab-ca.ts";
import { readOwnCertificate } from "./own-certificate.ts";

const directory = await mkdtemp(join(tmpdir(), "k3s-lab-own-"));
after(() => rm(directory, { recursive: true }));
const { certificate, key } = await labCertificate(["app.com", "*.app.com"], join(directory, "ca"));
const other = await labCertificate(["other.com"], join(directory, "ca"));
const files = { certificate: "web.crt", key: "web.key" };
const days = (count: number) => new Date(Date.now() + count * 24 * 3600 * 1000);

/** What is read of files with this content. */
async function read(content: { certificate?: string; key?: string }, hosts = ["app.com"], now?: Date) {
  await writeFile(join(directory, files.certificate), content.certificate ?? certificate);
  await writeFile(join(directory, files.key), content.key ?? key, { mode: 0o600 });
  return readOwnCertificate(files, hosts, "FILE: k3s-lab:apps[0].tls", {
    directory,
    ...(now ? { now } : {}),
  });
}

test("reads a certificate that clients would accept", async () => {
  assert.deepEqual(await read({}, ["app.com", "a.app.com", "*.app.com"]), { certificate, key });
});

const faults: readonly (readonly [string, () => Promise<unknown>, RegExp])[] = [
  ["expired", () => read({}, ["app.com"], days(366)), /tls\.certificate: web\.crt .*it ended on \d{4}-/],
  [
    "that is not valid yet",
    () => read({}, ["app.com"], days(-1)),
    /tls\.certificate: web\.crt .*it begins on/,
  ],
  [
    "of another host",
    () => read({}, ["app.com", "b.com"]),
    /tls\.certificate: web\.crt .*for b\.com: it is for DNS:app\.com, DNS:\*\.app\.com/,
  ],
  [
    "that is not a certificate",
    () => read({ certificate: "x" }),
    /tls\.certificate: web\.crt .*-----BEGIN CERTIFICATE/,
  ],
  [
    "with another's key",
    () => read({ key: other.key }),
    /tls\.key: web\.key .*the first certificate in web\.crt: this key is another's/,
  ],
  ["with an invalid key", () => read({ key: certificate }), /tls\.key: web\.key .*a private key as PEM/],
  [
    "with an encrypted key",
    () =>
      read({
        key: createPrivateKey(key)
          .export({ type: "pkcs8", format: "pem", cipher: "aes-256-cbc", passphrase: "x" })
          .toString(),
      }),
    /tls\.key: web\.key .*without a passphrase/,
  ],
  [
    "with a world-readable key",
    async () => {
      await read({});
      await chmod(join(directory, files.key), 0o644);
      try {
        return await readOwnCertificate(files, ["app.com"], "FILE: k3s-lab:apps[0].tls", { directory });
      } finally {
        await chmod(join(directory, files.key), 0o600);
      }
    },
    /tls\.key: web\.key .*chmod 600/,
  ],
  [
    "that does not exist",
    () => readOwnCertificate({ ...files, certificate: "no.crt" }, [], "FILE: k3s-lab:tls", { directory }),
    /^FILE: k3s-lab:tls\.certificate: no\.crt .*there is no .*\/no\.crt\.$/,
  ],
];

for (const [name, attempt, expected] of faults)
  test(`rejects a certificate ${name}, by file name and without its content`, async () => {
    await assert.rejects(attempt, (error) => {
      assert.ok(error instanceof LabError && error.exitCode === 2);
      assert.match(error.message, expected);
      assert.doesNotMatch(error.message, /MIG|MII/);
      return true;
    });
  });
