import { readFileSync } from "node:fs";
import pWaitFor from "p-wait-for";

/** Does the process still run? One that has ended but that nobody has waited for does not. */
export function isAlive(pid: number): boolean {
  try {
    return !readFileSync(`/proc/${pid}/stat`, "utf8").includes(") Z ");
  } catch {
    return false;
  }
}

/** Waits up to 5 s for a process id that a command writes into a file. */
export async function writtenPid(file: string): Promise<number> {
  const read = () => Number(readFileSync(file, { encoding: "utf8", flag: "a+" }));
  await pWaitFor(() => read() > 0, {
    interval: 10,
    timeout: { milliseconds: 5000, message: `no process id appeared in ${file}` },
  });
  return read();
}
