import { appendFileSync, existsSync, renameSync, statSync } from "node:fs";
import { dirname } from "node:path";
import type { Config } from "../shared/config.ts";
import type { AccessRecord } from "../shared/server.ts";

/** Size in bytes at which the file is rotated to `access.log.1`: it is in memory or on a node's disk. */
const mostBytes = 4 * 1024 * 1024;

/** A request as a line of JSON. */
export function accessLine({ pod }: Config, { request, peer, ...record }: AccessRecord): string {
  const [client] = String(request.headers["x-forwarded-for"] ?? peer ?? "").split(",");
  return JSON.stringify({ time: new Date().toISOString(), pod, client, ...record });
}

/** Writes each line to standard output and, if its folder exists, to a file that a sidecar reads. */
export function accessLog(file: string, complain: (error: unknown) => void): (line: string) => void {
  const print = (line: string) => process.stdout.write(`${line}\n`);
  if (!existsSync(dirname(file))) return print;
  let size = existsSync(file) ? statSync(file).size : 0;
  let told = false;
  return (line) => {
    print(line);
    try {
      if (size >= mostBytes) {
        renameSync(file, `${file}.1`);
        size = 0;
      }
      appendFileSync(file, `${line}\n`);
      size += Buffer.byteLength(line) + 1;
    } catch (error) {
      // A full disk must cost log lines, not responses.
      if (!told) complain(error);
      told = true;
    }
  };
}
