import assert from "node:assert/strict";
import { chmod, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { execa } from "execa";
import { LabError } from "../lib/errors.ts";
import { readServerSecrets } from "./server-secrets.ts";

const folder = await mkdtemp(join(tmpdir(), "secrets-"));
after(() => rm(folder, { recursive: true }));

const read = (file: string | undefined) => readServerSecrets(file, "Pulumi.cluster.yaml", folder);

async function refused(text: string, sentence: RegExp, mode = 0o600): Promise<void> {
  await writeFile(join(folder, "bad"), text);
  await chmod(join(folder, "bad"), mode);
  await assert.rejects(read("bad"), (error) => {
    assert.ok(error instanceof LabError);
    assert.equal(error.exitCode, 2);
    assert.match(error.message, sentence);
    assert.doesNotMatch(error.message, /hunter2/);
    return true;
  });
}

test("a private file is valid K3s configuration", async () => {
  assert.equal(await read(undefined), undefined);
  await writeFile(join(folder, "good"), "etcd-s3-access-key: me\netcd-s3-secret-key: hunter2\n", {
    mode: 0o600,
  });
  assert.equal(await read("good"), '{"etcd-s3-access-key":"me","etcd-s3-secret-key":"hunter2"}');
});

test("rejects any other file without showing secrets", async () => {
  await assert.rejects(read("none"), /k3s\.serverSecrets: none is not accepted; expected a file that exists/);
  await assert.rejects(read("."), /expected a file that exists/);
  await refused("etcd-s3-secret-key: hunter2", /expected a file that only you may read: chmod 600 /, 0o644);
  await refused("token: hunter2", /mapping of etcd-s3-access-key, .* \(wrong: token\)/);
  await refused("etcd-s3-secret-key: [hunter2]", /\(wrong: etcd-s3-secret-key\)/);
  // K3s would read these otherwise than the lab, or not at all.
  for (const value of [
    "yes",
    "1_000",
    "2026-01-01",
    "12:30:45",
    '"hunter2\\n"',
    '"hunter2 "',
    "!!binary aHVudGVyMg==",
  ])
    await refused(`etcd-s3-secret-key: ${value}\n`, /expected a YAML mapping .* in quotes/);
  await execa("mkfifo", ["-m", "600", join(folder, "pipe")]);
  await assert.rejects(read("pipe"), /expected a file that exists/);
  await assert.rejects(read("a\0b"), /expected a file that exists/);
  for (const text of ["", "hunter2", "{hunter2", "- hunter2"]) await refused(text, /expected a YAML mapping/);
});
