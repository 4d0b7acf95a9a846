import { readFileSync } from "node:fs";
import pWaitFor from "p-wait-for";

/** Waits up to a minute, for a computer may be busy, for a process id that a command writes into a file. */
export async function readPid(file: string): Promise<number> {
  const read = () => Number(readFileSync(file, { encoding: "utf8", flag: "a+" }));
  await pWaitFor(() => read() > 0, {
    interval: 10,
    timeout: { milliseconds: 60_000, message: `no process id appeared in ${file}` },
  });
  return read();
}
