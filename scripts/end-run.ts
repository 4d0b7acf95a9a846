import { readdir, readFile } from "node:fs/promises";
import pWaitFor from "p-wait-for";
import { parseStat } from "../stacks/lib/processes.ts";
import { mark } from "./run-mark.ts";

/** Milliseconds that a program gets to end after SIGTERM. */
const endsWithin = 5_000;
/** Milliseconds that Pulumi gets after an interrupt to end its children and save its state. */
const pulumiEndsWithin = 45_000;

/**
 * Ends the programs of a run: Pulumi gracefully, with its children; others by SIGTERM; and what ignores
 * that, by SIGKILL. Returns when none is left.
 * @param options.told whether Pulumi has already been interrupted. Default: false.
 * @param options.hard whether to kill everything immediately. Default: false.
 */
export async function endRun(
  id: string,
  { told = false, hard = false }: { readonly told?: boolean; readonly hard?: boolean } = {},
): Promise<void> {
  const began = Date.now();
  const sent = new Set<string>();
  const send = (pid: number, name: NodeJS.Signals) => {
    if (sent.has(`${pid} ${name}`)) return;
    sent.add(`${pid} ${name}`);
    try {
      process.kill(pid, name);
    } catch {
      // It has ended, or this user may not signal it.
    }
  };
  const isOver = async () => {
    const programs = await programsOf(id);
    const took = Date.now() - began;
    const isPulumis = ({ name, parent }: Program): boolean =>
      name === "pulumi" || programs.some((one) => one.pid === parent && isPulumis(one));
    for (const one of programs) {
      const within = isPulumis(one) ? pulumiEndsWithin : 0;
      if (hard || took > within + endsWithin) send(one.pid, "SIGKILL");
      else if (took >= within) send(one.pid, "SIGTERM");
      else if (one.name === "pulumi" && !told) send(one.pid, "SIGINT");
    }
    return programs.length === 0 || took > pulumiEndsWithin + 2 * endsWithin;
  };
  await pWaitFor(isOver, { interval: 100 });
}

interface Program {
  readonly pid: number;
  readonly parent: number;
  readonly name: string;
}

/** The processes that carry a run's mark, except this one and virtual machines, which outlive the run. */
async function programsOf(id: string): Promise<Program[]> {
  const pids = (await readdir("/proc").catch(() => [])).filter((name) => /^\d+$/.test(name)).map(Number);
  const read = (pid: number, file: string) => readFile(`/proc/${pid}/${file}`, "latin1").catch(() => "");
  const found = pids.map(async (pid): Promise<Program[]> => {
    if (pid === process.pid || !(await read(pid, "environ")).split("\0").includes(`${mark}=${id}`)) return [];
    const text = await read(pid, "stat");
    const stat = parseStat(text);
    const name = text.slice(text.indexOf("(") + 1, text.lastIndexOf(")"));
    return stat && stat.state !== "Z" && !/^(VBox|qemu)/.test(name)
      ? [{ pid, parent: stat.parent, name }]
      : [];
  });
  return (await Promise.all(found)).flat();
}

// Entry point of the guard that cleans up after a killed `lab`; see `startGuard`.
const [, program, id] = process.argv;
if (program === import.meta.filename && id !== undefined) await endRun(id);
