import { open } from "node:fs/promises";
import { get } from "node:http";
import type { App } from "../shared/server.ts";

/** Counts the lines of an access log as they are written, across rotations. */
export class LogCounter {
  readonly #file: string;
  readonly #counts = new Map<string, number>();
  /** The file that was read last, the offset, and the incomplete last line. */
  #at = { inode: 0, offset: 0, rest: "" };

  constructor(file: string) {
    this.#file = file;
  }

  /** Reads new lines, first from the rotated log. A missing log counts as empty. */
  async read(): Promise<void> {
    if (this.#at.inode !== 0) await this.#readFrom(`${this.#file}.1`, (inode) => inode === this.#at.inode);
    await this.#readFrom(this.#file, () => true);
  }

  async #readFrom(path: string, isWanted: (inode: number) => boolean): Promise<void> {
    const file = await open(path).catch((error: NodeJS.ErrnoException) => {
      if (error.code === "ENOENT") return undefined;
      throw error;
    });
    if (file === undefined) return;
    try {
      const { ino, size } = await file.stat();
      if (!isWanted(ino)) return;
      if (ino !== this.#at.inode || size < this.#at.offset) this.#at = { inode: ino, offset: 0, rest: "" };
      const { offset, rest } = this.#at;
      const { bytesRead, buffer } = await file.read({
        buffer: Buffer.alloc(size - offset),
        position: offset,
      });
      // As bytes, because a read may end within a character; the status is ASCII.
      const lines = (rest + buffer.subarray(0, bytesRead).toString("latin1")).split("\n");
      this.#at = { inode: ino, offset: offset + bytesRead, rest: lines.pop() ?? "" };
      for (const line of lines) this.#count(line);
    } finally {
      await file.close();
    }
  }

  /** Prometheus text format. */
  render(): string {
    const name = "access_log_requests_total";
    return [
      `# HELP ${name} Requests in the access log of the container beside this one.`,
      `# TYPE ${name} counter`,
      ...[...this.#counts].sort().map(([code, count]) => `${name}{code="${code}"} ${count}`),
      "",
    ].join("\n");
  }

  #count(line: string): void {
    const [, code] = /"status":(\d{3})\b/.exec(line) ?? [];
    if (code !== undefined) this.#counts.set(code, (this.#counts.get(code) ?? 0) + 1);
  }
}

/**
 * The sidecar: turns the frontend's access log on their shared volume into metrics, and probes the frontend on localhost.
 * @param neighbour such as `http://127.0.0.1:8080`.
 */
export function logMetrics(
  counter: LogCounter,
  neighbour: string,
  complain: (error: unknown) => void,
): Omit<App, "note"> {
  return {
    handle: ({ sendProblem }) => sendProblem(404, "Only metrics are served here, on a separate port"),
    metrics: async () => {
      const [answers] = await Promise.all([doesAnswer(neighbour), counter.read()]);
      const name = "neighbour_answers";
      return `${counter.render()}# HELP ${name} Whether the container beside this one answers at localhost.\n# TYPE ${name} gauge\n${name} ${answers ? 1 : 0}\n`;
    },
    complain,
  };
}

const doesAnswer = (neighbour: string): Promise<boolean> =>
  new Promise((done) => {
    get(`${neighbour}/healthz`, { signal: AbortSignal.timeout(1000) }, (response) => {
      response.resume();
      done(response.statusCode === 200);
    }).on("error", () => done(false));
  });
