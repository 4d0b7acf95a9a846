import { appendFile, readFile } from "node:fs/promises";
import { setTimeout as pause } from "node:timers/promises";
import { stripVTControlCharacters } from "node:util";
import { execa } from "execa";
import { LabError } from "../../stacks/lib/errors.ts";
import type { HttpAnswer } from "../../stacks/lib/http.ts";
import type { Phase, Timing } from "./results.ts";

/** A command to time. */
export interface TimedCommand {
  readonly file: string;
  readonly args: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
  /** Gets everything that the command prints, each line with its time. */
  readonly log: string;
  /** Ends when the apps answer; it is told to give up when the command has ended. Default: nothing is watched. */
  readonly watch?: (signal: AbortSignal) => Promise<void>;
}

/**
 * Runs a command to its end and notes when each phase ends: the scripts of the by-hand way say `phase NAME`, `lab` puts a tick before the
 * title of a step that is done.
 *
 * @throws LabError with the command's last lines when it fails.
 */
export async function timed({ file, args, env = {}, log, watch }: TimedCommand): Promise<Timing> {
  const began = performance.now();
  const elapsed = () => (performance.now() - began) / 1000;
  const before = await childSeconds();
  const giveUp = new AbortController();
  const seen = watch?.(giveUp.signal).then(elapsed, () => undefined);
  const phases: Phase[] = [];
  const lines: string[] = [];
  const child = execa(file, args, {
    env,
    stdin: "ignore",
    all: true,
    reject: false,
    buffer: false,
  });
  for await (const raw of child.iterable({ from: "all" })) {
    const line = stripVTControlCharacters(raw);
    const name = phaseName(line);
    if (name !== undefined) phases.push({ name, endsAt: elapsed() });
    lines.push(`${elapsed().toFixed(1).padStart(6)}  ${line}\n`);
  }
  const result = await child;
  const returned = elapsed();
  const processor = (await childSeconds()) - before;
  await appendFile(log, `$ ${file} ${args.join(" ")}\n${lines.join("")}`);
  if (result.failed) {
    giveUp.abort();
    await seen;
    throw new LabError(
      `${file} ${args.join(" ")} failed, so there is nothing to compare. Its last lines, from ${log}:\n${lines.slice(-15).join("")}`,
    );
  }
  // The apps were told to be up: what is left of the watch is one round of requests.
  const late = setTimeout(() => giveUp.abort(), 5000);
  const answering = await seen;
  clearTimeout(late);
  return { returned, processor, phases, ...(answering === undefined ? {} : { answering }) };
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

/** An app and the host that leads to it. */
export interface Route {
  readonly name: string;
  /** Default: any; an app of this name in whatever namespace may answer. */
  readonly namespace?: string | undefined;
  readonly host?: string | undefined;
}

/** Ends when each app has answered once. @param send one request, as a visitor sends it. */
export async function untilAnswering(
  routes: readonly Route[],
  send: (host: string | undefined) => Promise<HttpAnswer>,
  signal: AbortSignal,
): Promise<void> {
  const missing = new Set(routes);
  while (missing.size > 0) {
    const answers = [...missing].map(async (route) => {
      if (isFrom(route, await send(route.host).catch(() => undefined))) missing.delete(route);
    });
    await Promise.all(answers);
    if (missing.size > 0) await pause(100, undefined, { signal });
  }
}

function isFrom({ name, namespace }: Route, answer: HttpAnswer | undefined): boolean {
  try {
    const self = JSON.parse(answer?.body ?? "") as { app?: unknown; namespace?: unknown };
    return (
      answer?.status === 200 && self.app === name && (namespace === undefined || self.namespace === namespace)
    );
  } catch {
    return false;
  }
}
