import assert from "node:assert/strict";
import { test } from "node:test";
import { type Bucket, readBolt, withTime, writeBolt } from "./bolt.ts";

const bytes = (text: string) => Buffer.from(text);
const bucket = (entries: Bucket["entries"], sequence = 0n): Bucket => ({ sequence, entries });
const numbered = (count: number, value: (index: number) => Buffer | Bucket): Bucket["entries"] =>
  Array.from({ length: count }, (_, index) => [bytes(`key-${String(index).padStart(6, "0")}`), value(index)]);

const databases: Record<string, Bucket> = {
  nothing: bucket([]),
  "a value": bucket([[bytes("a"), bytes("1")]], 7n),
  "an empty bucket": bucket([[bytes("v1"), bucket([], 3n)]]),
  "a small bucket, which lies in its parent's page": bucket([
    [bytes("v1"), bucket([[bytes("a"), bytes("1")]])],
  ]),
  "a value of several pages": bucket([
    [bytes("big"), Buffer.alloc(20_000, 1)],
    [bytes("small"), bytes("1")],
  ]),
  "more than a page": bucket(numbered(500, (index) => bytes(`value ${index}`))),
  "more than a page of pages": bucket(numbered(60_000, () => bytes("value"))),
  "buckets in buckets": bucket(
    numbered(50, () =>
      bucket(
        numbered(40, () => bucket([[bytes("a"), bytes("1")]])),
        5n,
      ),
    ),
  ),
};

for (const [name, content] of Object.entries(databases))
  test(`what is written is read again: ${name}`, () =>
    assert.deepEqual(readBolt(writeBolt(content)), content));

test("the newer of the two first pages counts, and a damaged one does not", () => {
  const file = writeBolt(bucket([[bytes("a"), bytes("1")]]));
  // The transaction of the second copy.
  file.writeUInt8(99, 4096 + 16 + 40);
  assert.deepEqual(readBolt(file), bucket([[bytes("a"), bytes("1")]]));
});

test("another file is refused", () => {
  assert.throws(() => readBolt(bytes("not a database")), /no database of containerd's/);
  assert.throws(() => readBolt(Buffer.alloc(16_384)), /no database of containerd's/);
});

test("everything gets one time, as Go writes it", () => {
  const now = Buffer.from("010000000edd2a3c0000000000ffff", "hex");
  const before = bucket([
    [
      bytes("image"),
      bucket([
        [bytes("createdat"), Buffer.alloc(15, 9)],
        [bytes("size"), bytes("5")],
      ]),
    ],
  ]);
  const [[, inner]] = withTime(before, 1_704_067_200).entries as unknown as [[Buffer, Bucket]];
  const [[, time], [, size]] = inner.entries as unknown as [[Buffer, Buffer], [Buffer, Buffer]];
  assert.equal(size.toString(), "5");
  assert.equal(time.length, now.length);
  assert.equal(Number(time.readBigInt64BE(1) - 62135596800n), 1_704_067_200);
  assert.equal(time.readInt16BE(13), -1);
});
