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
  /** Gets everything that the command prints, each line with its time. */
  readonly log: string;
  /** What is watched for meanwhile. Default: nothing. */
  readonly watches?: Readonly<Record<Name, Watch>>;
}

/**
 * Runs a command to its end and notes when each phase ends: by-hand scripts say `phase NAME`, `lab` puts a tick before a step.
 * @returns with it, after how many seconds each watched thing was seen.
 * @throws LabError with the command's last lines when it fails.
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
  // What was watched for was told to be there: what is left is one round of requests.
  const late = setTimeout(() => giveUp.abort(), failed ? 0 : 5000);
  await watching;
  clearTimeout(late);
  if (failed)
    throw new LabError(
      `${file} ${args.join(" ")} failed, so there is nothing to compare. Its last lines, from ${log}:\n${lines.slice(-15).join("")}`,
    );
  return { ...(seen as Partial<Record<Name, number>>), returned, processor, phases };
}

/** Processor seconds of this process's children that have ended, theirs included; NaN where the kernel does not tell. */
async function childSeconds(): Promise<number> {
  const stat = await readFile("/proc/self/stat", "utf8").catch(() => "");
  // Behind the program's name, which may hold spaces; in hundredths of a second.
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  return (Number(fields[13]) + Number(fields[14])) / 100;
}

/** The phase that a line of output says is done, without the time that `lab` prints behind it. */
export const phaseName = (line: string): string | undefined =>
  /^phase (.+)$/.exec(line)?.[1] ?? /^\s*[✔√] ([^:[]+?)\s*(?::.*|\[.*)?$/.exec(line)?.[1];
