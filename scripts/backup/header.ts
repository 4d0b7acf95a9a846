/** What a backup's header says. */
export interface Header {
  /** Name of the source database. */
  readonly database: string;
  /** The server's version, such as `15.20 (Debian 15.20-0+deb12u1)`. */
  readonly server: string;
  /** pg_dump's version. */
  readonly program: string;
  /** When it was made, by that computer's clock: ISO 8601, UTC. */
  readonly at: string;
}

/** Bytes that contain any backup's header: names in PostgreSQL are short. */
export const headerLength = 4096;

/**
 * Reads the header of a file in pg_dump's custom format, which PostgreSQL 9.6 to 18 write (src/bin/pg_dump/pg_backup_archiver.c).
 * @returns undefined if it is not such a file.
 */
export function readHeader(bytes: Uint8Array): Header | undefined {
  const reader = new Reader(bytes);
  try {
    if (reader.text(5) !== "PGDMP") return undefined;
    const [major, minor] = [reader.byte(), reader.byte()];
    reader.byte();
    reader.intSize = reader.byte();
    reader.byte();
    const custom = 1;
    if (major !== 1 || minor < 12 || reader.byte() !== custom) return undefined;
    // Since 1.15 the compression is a method; before, it was a level.
    if (minor >= 15) reader.byte();
    else reader.int();
    const [second, minute, hour, day, month, year] = Array.from({ length: 7 }, () => reader.int());
    const at = new Date(
      Date.UTC((year ?? 0) + 1900, month ?? 0, day ?? 0, hour ?? 0, minute ?? 0, second ?? 0),
    );
    const [database, server, program] = [reader.string(), reader.string(), reader.string()];
    return { database, server, program, at: at.toISOString().replace(".000", "") };
  } catch (error) {
    if (error instanceof RangeError) return undefined;
    throw error;
  }
}

/** The major version in a text such as `15.20 (Debian …)`; 0 if there is none. */
export const majorOf = (version: string): number => Number(/^\d+/.exec(version)?.[0] ?? 0);

/** Each method throws a RangeError past the end of the bytes. */
class Reader {
  /** Bytes of a number, after a byte for its sign. */
  intSize = 4;
  readonly #bytes: Buffer;
  #place = 0;

  constructor(bytes: Uint8Array) {
    this.#bytes = Buffer.from(bytes);
  }

  byte(): number {
    const value = this.#bytes.readUInt8(this.#place);
    this.#place += 1;
    return value;
  }

  int(): number {
    const sign = this.byte();
    let value = 0;
    for (let index = 0; index < this.intSize; index += 1) value += this.byte() * 256 ** index;
    return sign === 1 ? -value : value;
  }

  text(length: number): string {
    if (length < 0 || this.#place + length > this.#bytes.length) throw new RangeError("the bytes end");
    const text = this.#bytes.toString("utf8", this.#place, this.#place + length);
    this.#place += length;
    return text;
  }

  string(): string {
    const length = this.int();
    return length < 0 ? "" : this.text(length);
  }
}
