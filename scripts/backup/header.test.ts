import assert from "node:assert/strict";
import { test } from "node:test";
import { header } from "./fake-backup.ts";
import { majorOf, readHeader } from "./header.ts";

test("reads the headers of PostgreSQL 15 and 16 backups", () => {
  const expected = {
    database: "guestbook",
    server: "15.20 (Debian)",
    program: "15.20",
    at: "2026-11-30T01:02:03Z",
  };
  for (const minor of [14, 15, 16]) assert.deepEqual(readHeader(header({ minor })), expected);
  assert.deepEqual([majorOf(expected.server), majorOf("19devel"), majorOf("none")], [15, 19, 0]);
});

test("rejects files that are not backups, or are truncated", () => {
  const whole = header();
  for (let length = 0; length < whole.length; length += 1)
    assert.equal(readHeader(whole.subarray(0, length)), undefined);
  assert.equal(
    readHeader(Buffer.from("PGDMP, says a text that goes on for a while and is none".repeat(9))),
    undefined,
  );
  // A tar archive of pg_dump's.
  assert.equal(readHeader(header({ format: 3 })), undefined);
});
