import { appendFile, readFile } from "node:fs/promises";
import { stripVTControlCharacters } from "node:util";
import { execa } from "execa";
import { LabError } from "../../stacks/lib/errors.ts";
import type { Phase, Timing } from "./results.ts";
import type { Watch } from "./watches.ts";

interface TimedCommand<Name extends string> {
  readonly file: string;
  readonly args: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
  /** Receives all output of the command, each line with its time. */
  readonly log: string;
  /** What to watch for meanwhile. Default: nothing. */
  readonly watches?: Readonly<Record<Name, Watch>>;
}

/**
 * Runs a command to its end and records when each phase ends: by-hand scripts print `phase NAME`, `lab` a tick before a step.
 * @returns the timing, and after how many seconds each watched thing was seen.
 * @throws LabError with the command's last lines if it fails.
 */
export async function timed<Name extends string = never>({
  file,
  args,
  env = {},
  log,
  watches,
}: TimedCommand<Name>): Promise<Timing & Readonly<Partial<Record<Name, number>>>> {
  const began = performance.now();
  const elapsed = () => (performance.now() - began) / 1000;
  const before = await childSeconds();
  const giveUp = new AbortController();
  const seen: Record<string, number> = {};
  const watching = Promise.allSettled(
    Object.entries<Watch>(watches ?? {}).map(async ([name, watch]) => {
      await watch(giveUp.signal);
      seen[name] = elapsed();
    }),
  );
  const phases: Phase[] = [];
  const lines: string[] = [];
  const child = execa(file, args, { env, stdin: "ignore", all: true, reject: false, buffer: false });
  for await (const raw of child.iterable({ from: "all" })) {
    const line = stripVTControlCharacters(raw);
    const name = phaseName(line);
    if (name !== undefined) phases.push({ name, endsAt: elapsed() });
    lines.push(`${elapsed().toFixed(1).padStart(6)}  ${line}\n`);
  }
  const { failed } = await child;
  const returned = elapsed();
  const processor = (await childSeconds()) - before;
  await appendFile(log, `$ ${file} ${args.join(" ")}\n${lines.join("")}`);
  // The command reports success: one more round of requests must do.
  const late = setTimeout(() => giveUp.abort(), failed ? 0 : 5000);
  await watching;
  clearTimeout(late);
  if (failed)
    throw new LabError(
      `${file} ${args.join(" ")} failed, so there is nothing to compare. Its last lines, from ${log}:\n${lines.slice(-15).join("")}`,
    );
  return { ...(seen as Partial<Record<Name, number>>), returned, processor, phases };
}

/** CPU seconds of this process's ended children and of theirs; NaN if the kernel does not report them. */
async function childSeconds(): Promise<number> {
  const stat = await readFile("/proc/self/stat", "utf8").catch(() => "");
  // After the program's name, which may contain spaces; in hundredths of a second.
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  return (Number(fields[13]) + Number(fields[14])) / 100;
}

/** The phase that a line of output reports as done, without the time that `lab` adds. */
export const phaseName = (line: string): string | undefined =>
  /^phase (.+)$/.exec(line)?.[1] ?? /^\s*[✔√] ([^:[]+?)\s*(?::.*|\[.*)?$/.exec(line)?.[1];
