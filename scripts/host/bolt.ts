/**
 * Rewrites databases of containerd (bbolt's format, version 2) so that the same content is the same bytes: pages in one
 * order, no free ones, and one time for everything. https://github.com/etcd-io/bbolt/blob/main/internal/common/page.go
 *
 *   node bolt.ts SECONDS FILE...    SECONDS since 1970 are then the times of what the files hold
 */
import { readFileSync, writeFileSync } from "node:fs";
import { LabError } from "../errors.ts";

const magic = 0xed0cdaed;
const pageSize = 4096;
const pageHeader = 16;
const element = 16;
const bucketHeader = 16;
const isBranch = 1;
const isLeaf = 2;
const isMeta = 4;
const isFreelist = 16;
/** A bucket without buckets in it that is smaller lies in its parent's page. */
const inlineLimit = pageSize / 4;

/** A bucket: keys in order, each with a value or a bucket of its own. */
export interface Bucket {
  /** The last number that the bucket gave out. */
  readonly sequence: bigint;
  readonly entries: readonly (readonly [key: Buffer, value: Buffer | Bucket])[];
}

/** @throws LabError when the bytes are no such database. */
export function readBolt(file: Buffer): Bucket {
  const metas = [0, 1].map((page) => readMeta(file, page)).filter((meta) => meta !== undefined);
  const [last] = metas.sort((a, b) => (a.transaction < b.transaction ? 1 : -1));
  if (!last) throw new LabError("This is no database of containerd's: it has no valid first page.");
  const { size } = last;
  const readPage = (page: Buffer): Bucket["entries"] => {
    const [flags, count] = [page.readUInt16LE(8), page.readUInt16LE(10)];
    return Array.from({ length: count }, (_, index) => pageHeader + index * element).flatMap((at) => {
      if (flags & isBranch) return readPage(file.subarray(Number(page.readBigUInt64LE(at + 8)) * size));
      const [kind, position] = [page.readUInt32LE(at), at + page.readUInt32LE(at + 4)];
      const end = position + page.readUInt32LE(at + 8);
      const value = page.subarray(end, end + page.readUInt32LE(at + 12));
      return [[page.subarray(position, end), kind & 1 ? readBucket(value) : value] as const];
    });
  };
  const readBucket = (header: Buffer): Bucket => {
    const root = Number(header.readBigUInt64LE(0));
    const page = root === 0 ? header.subarray(bucketHeader) : file.subarray(root * size);
    return { sequence: header.readBigUInt64LE(8), entries: readPage(page) };
  };
  return readBucket(last.root);
}

function readMeta(file: Buffer, page: number) {
  // The second copy lies one page further, and the first says how long a page is.
  const size = file.length > pageHeader + 12 ? file.readUInt32LE(pageHeader + 8) : 0;
  const at = page * size + pageHeader;
  if (file.length < at + 64 || file.readUInt32LE(at) !== magic || file.readUInt32LE(at + 4) !== 2)
    return undefined;
  if (file.readBigUInt64LE(at + 56) !== checksum(file.subarray(at, at + 56))) return undefined;
  return { size, root: file.subarray(at + 16, at + 32), transaction: file.readBigUInt64LE(at + 48) };
}

/** FNV-1a of 64 bits. */
function checksum(bytes: Buffer): bigint {
  let hash = 0xcbf29ce484222325n;
  for (const byte of bytes) hash = BigInt.asUintN(64, (hash ^ BigInt(byte)) * 0x100000001b3n);
  return hash;
}

/** The same content is the same bytes. */
export function writeBolt(root: Bucket): Buffer {
  const pages: Buffer[] = [];
  // Two copies of the first page, and a list of free pages, go before all others.
  let next = 3;
  const place = (page: Buffer): number => {
    const number = next;
    page.writeBigUInt64LE(BigInt(number), 0);
    pages.push(page);
    next += page.length / pageSize;
    return number;
  };
  const placeTree = (entries: readonly Entry[], flags: number): number => {
    const children = split(entries).map((part) => {
      const pgid = place(pageOf(part, flags));
      return { key: part[0]?.key ?? Buffer.alloc(0), value: Buffer.alloc(0), kind: 0, pgid };
    });
    const [only] = children;
    return only && children.length === 1 ? only.pgid : placeTree(children, isBranch);
  };
  const header = (sequence: bigint, page: number): Buffer => {
    const bytes = Buffer.alloc(bucketHeader);
    bytes.writeBigUInt64LE(BigInt(page), 0);
    bytes.writeBigUInt64LE(sequence, 8);
    return bytes;
  };
  const bucket = ({ sequence, entries }: Bucket, canInline: boolean): Buffer => {
    const leaves = entries.map(([key, value]) =>
      Buffer.isBuffer(value)
        ? { key, value, kind: 0, pgid: 0 }
        : { key, value: bucket(value, true), kind: 1, pgid: 0 },
    );
    const inline = canInline && leaves.every(({ kind }) => kind === 0) && lengthOf(leaves) <= inlineLimit;
    if (inline) return Buffer.concat([header(sequence, 0), layOut(leaves, isLeaf, lengthOf(leaves))]);
    return header(sequence, placeTree(leaves, isLeaf));
  };
  const top = bucket(root, false);
  const free = layOut([], isFreelist, pageSize);
  free.writeBigUInt64LE(2n, 0);
  const meta = (page: number): Buffer => {
    const bytes = layOut([], isMeta, pageSize);
    bytes.writeBigUInt64LE(BigInt(page), 0);
    const at = pageHeader;
    bytes.writeUInt32LE(magic, at);
    bytes.writeUInt32LE(2, at + 4);
    bytes.writeUInt32LE(pageSize, at + 8);
    top.copy(bytes, at + 16);
    bytes.writeBigUInt64LE(2n, at + 32);
    bytes.writeBigUInt64LE(BigInt(next), at + 40);
    bytes.writeBigUInt64LE(BigInt(page), at + 48);
    bytes.writeBigUInt64LE(checksum(bytes.subarray(at, at + 56)), at + 56);
    return bytes;
  };
  return Buffer.concat([meta(0), meta(1), free, ...pages]);
}

interface Entry {
  readonly key: Buffer;
  readonly value: Buffer;
  /** 1 for a bucket. */
  readonly kind: number;
  /** The page that an element of a branch leads to. */
  readonly pgid: number;
}

const lengthOf = (entries: readonly Entry[]): number =>
  entries.reduce((sum, { key, value }) => sum + element + key.length + value.length, pageHeader);

/** Parts that fit into a page each; an entry that fits into none has pages of its own. */
function split(entries: readonly Entry[]): Entry[][] {
  const parts: Entry[][] = [[]];
  for (const entry of entries) {
    const last = parts.at(-1) ?? [];
    if (last.length > 0 && lengthOf([...last, entry]) > pageSize) parts.push([entry]);
    else last.push(entry);
  }
  return parts;
}

const pageOf = (entries: readonly Entry[], flags: number): Buffer =>
  layOut(entries, flags, Math.ceil(lengthOf(entries) / pageSize) * pageSize);

function layOut(entries: readonly Entry[], flags: number, length: number): Buffer {
  const page = Buffer.alloc(length);
  page.writeUInt16LE(flags, 8);
  page.writeUInt16LE(entries.length, 10);
  page.writeUInt32LE(Math.max(0, Math.ceil(length / pageSize) - 1), 12);
  let position = pageHeader + entries.length * element;
  entries.forEach(({ key, value, kind, pgid }, index) => {
    const at = pageHeader + index * element;
    if (flags === isBranch) {
      page.writeUInt32LE(position - at, at);
      page.writeUInt32LE(key.length, at + 4);
      page.writeBigUInt64LE(BigInt(pgid), at + 8);
    } else {
      page.writeUInt32LE(kind, at);
      page.writeUInt32LE(position - at, at + 4);
      page.writeUInt32LE(key.length, at + 8);
      page.writeUInt32LE(value.length, at + 12);
    }
    key.copy(page, position);
    value.copy(page, position + key.length);
    position += key.length + value.length;
  });
  return page;
}

/** Gives everything in a bucket one time, in seconds since 1970; containerd writes times as Go's time.MarshalBinary does. */
export function withTime({ sequence, entries }: Bucket, seconds: number): Bucket {
  const time = Buffer.alloc(15);
  time.writeUInt8(1, 0);
  time.writeBigInt64BE(BigInt(seconds) + 62135596800n, 1);
  time.writeInt16BE(-1, 13); // UTC
  return {
    sequence,
    entries: entries.map(([key, value]) => {
      if (!Buffer.isBuffer(value)) return [key, withTime(value, seconds)];
      return [key, /^(created|updated)at$/.test(key.toString()) ? time : value];
    }),
  };
}

if (import.meta.main) {
  const [seconds, ...files] = process.argv.slice(2);
  for (const file of files)
    writeFileSync(file, writeBolt(withTime(readBolt(readFileSync(file)), Number(seconds))));
}
