import assert from "node:assert/strict";
import { LabError } from "../../stacks/lib/errors.ts";

/** The beginning of a backup as pg_dump writes it, for tests. @param minor of the archive's version: 14 is PostgreSQL 15's. */
export function header({
  minor = 14,
  format = 1,
  database = "guestbook",
  server = "15.20 (Debian)",
  program = "15.20",
} = {}): Buffer {
  const int = (value: number) => {
    const bytes = Buffer.alloc(5);
    bytes.writeUInt8(value < 0 ? 1 : 0);
    bytes.writeUInt32LE(Math.abs(value), 1);
    return bytes;
  };
  const text = (words: string) => Buffer.concat([int(words.length), Buffer.from(words)]);
  const time = [3, 2, 1, 30, 10, 126, 0].map(int);
  return Buffer.concat([
    Buffer.from("PGDMP"),
    Buffer.from([1, minor, 0, 4, 8, format]),
    minor >= 15 ? Buffer.from([1]) : int(-1),
    ...time,
    ...[database, server, program].map(text),
  ]);
}

/** The exit code and the words of what was refused, for tests. */
export const refusal = async (work: Promise<unknown>): Promise<string> => {
  const error = await work.then(
    () => assert.fail("it was not refused"),
    (error: unknown) => error,
  );
  assert.ok(error instanceof LabError, String(error));
  return `${error.exitCode} ${error.message}`;
};
