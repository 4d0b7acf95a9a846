import { type ChildProcess, spawn } from "node:child_process";
import { randomUUID } from "node:crypto";
import { readdir, readFile, rm } from "node:fs/promises";
import { join } from "node:path";
import pWaitFor from "p-wait-for";
import { LabError } from "../stacks/lib/errors.ts";
import { writeWhole } from "../stacks/lib/files.ts";
import { labDir } from "../stacks/lib/paths.ts";
import { parseStat } from "../stacks/lib/processes.ts";
import { mark, withoutMark } from "./run-mark.ts";
import { withFileLock } from "./toolchain/file-lock.ts";

/** Milliseconds that a program gets to end after SIGTERM. */
const endsWithin = 5_000;
/** Milliseconds that Pulumi gets after an interrupt: it ends its children, and writes down what is done. */
const pulumiEndsWithin = 45_000;

/**
 * One run that changes the lab. Only one at a time works on a checkout; a second one waits for the first.
 *
 * However the run ends, no program that it started goes on: not after a failure, not after SIGINT, SIGTERM or SIGHUP, and
 * not after SIGKILL, for which a small process of its own waits. Where that was killed too, the next run does it first.
 *
 * @param work gets a signal that aborts when the run is interrupted; no new step may begin then.
 * @throws LabError (exit code 130) when it was interrupted.
 */
export async function asRun<T>(
  verb: "up" | "down",
  work: (signal: AbortSignal, endChildren: () => Promise<void>) => Promise<T>,
  folder: string = labDir,
): Promise<T> {
  const record = join(folder, "run.json");
  const progress = (line: string) => process.stderr.write(`lab: ${line}\n`);
  return await withFileLock(
    join(folder, "run.lock"),
    async () => {
      const left = await readRecord(record);
      if (left) await endRun(left);
      const id = randomUUID();
      await writeWhole(record, JSON.stringify({ id, verb, pid: process.pid }));
      process.env[mark] = id;
      const guard = startGuard(id);
      const controller = new AbortController();
      const interrupt = (name: NodeJS.Signals) => {
        if (controller.signal.aborted) {
          void endRun(id, { hard: true }).finally(() => process.exit(130));
          return;
        }
        process.stderr.write(`\nlab: shutting down after ${name}; repeat to stop at once\n`);
        controller.abort(
          new LabError(
            `Interrupted. Completed work is kept: run \`lab ${verb}\` again to continue${verb === "up" ? ", or `lab down` to clean up" : ""}.`,
            { exitCode: 130 },
          ),
        );
        // A terminal's Ctrl-C has reached Pulumi already, and a second one would make it give up its orderly end.
        void endRun(id, { told: name === "SIGINT" && process.stdin.isTTY });
      };
      for (const name of signals) process.on(name, interrupt);
      const orphaned = whenNpmIsGone(() => {
        if (!controller.signal.aborted) interrupt("SIGHUP");
      });
      const endChildren = () => endRun(id);
      try {
        return await work(controller.signal, endChildren);
      } catch (error) {
        await endRun(id, { told: controller.signal.aborted });
        if (controller.signal.aborted && !(error instanceof LabError && error.exitCode === 130))
          throw controller.signal.reason;
        throw error;
      } finally {
        clearInterval(orphaned);
        for (const name of signals) process.off(name, interrupt);
        delete process.env[mark];
        await rm(record, { force: true });
        guard.stdin?.end("done\n");
      }
    },
    { progress },
  );
}

const signals = ["SIGINT", "SIGTERM", "SIGHUP"] as const;

/**
 * Nothing tells a program that the npm that started it was killed, but that it has another parent: `package.json` has the
 * shell between the two replaced by it.
 */
function whenNpmIsGone(act: () => void): NodeJS.Timeout {
  const parent = process.ppid;
  return setInterval(() => {
    if (process.env.npm_lifecycle_event !== undefined && process.ppid !== parent) act();
  }, 500).unref();
}

/**
 * Ties the programs of a command that changes no lab to it: they end with it, when it fails, is interrupted or killed.
 *
 * @param options.interrupts whether an interrupt ends the command. Default: true; false for one that has its own answer.
 * @returns what is to be called in the end, with whether it went well.
 */
export function tiePrograms({
  interrupts = true,
}: {
  readonly interrupts?: boolean;
} = {}): (well: boolean) => Promise<void> {
  const id = randomUUID();
  process.env[mark] = id;
  const guard = startGuard(id);
  const orphaned = whenNpmIsGone(() => {
    clearInterval(orphaned);
    void endRun(id).finally(() => process.exit(130));
  });
  if (interrupts)
    for (const name of signals)
      process.once(name, () => {
        process.stderr.write(`\nlab: ended by ${name}\n`);
        void endRun(id).finally(() => process.exit(130));
      });
  return async (well) => {
    if (!well) await endRun(id);
    guard.stdin?.end("done\n");
  };
}

/** The id of a run that did not come to its end. */
async function readRecord(file: string): Promise<string | undefined> {
  const text = await readFile(file, "utf8").catch(() => "");
  return /"id":"([-0-9a-f]{36})"/.exec(text)?.[1];
}

/** Starts what ends the run's programs when this process is gone without having done so: its input then ends. */
function startGuard(id: string): ChildProcess {
  const end = [
    process.execPath,
    "--disable-warning=ExperimentalWarning",
    join(import.meta.dirname, "end-run.ts"),
    id,
  ];
  const guard = spawn("/bin/sh", ["-c", 'read -r _ || exec "$@"', "lab-guard", ...end], {
    cwd: "/",
    detached: true,
    env: withoutMark(),
    stdio: ["pipe", "ignore", "ignore"],
  });
  guard.on("error", () => {});
  guard.stdin?.on("error", () => {});
  guard.unref();
  (guard.stdin as unknown as { unref?: () => void } | null)?.unref?.();
  return guard;
}

interface Found {
  readonly pid: number;
  readonly parent: number;
  readonly name: string;
}

/**
 * Ends the programs of a run: Pulumi in good order, with all that it started; others by SIGTERM; and what ignores
 * that by SIGKILL. Returns when none is left.
 *
 * @param options.told whether Pulumi has been interrupted already. Default: false.
 * @param options.hard whether to end all at once. Default: false.
 */
export async function endRun(
  id: string,
  { told = false, hard = false }: { readonly told?: boolean; readonly hard?: boolean } = {},
): Promise<void> {
  const began = Date.now();
  const sent = new Map<number, Set<string>>();
  const send = (pid: number, name: NodeJS.Signals) => {
    const before = sent.get(pid) ?? new Set();
    if (before.has(name)) return;
    sent.set(pid, before.add(name));
    try {
      process.kill(pid, name);
    } catch {
      // It has ended, or is not ours to end.
    }
  };
  await pWaitFor(
    async () => {
      const found = await programsOf(id);
      if (found.length === 0) return true;
      const took = Date.now() - began;
      const pulumis = new Set(found.filter(({ name }) => name === "pulumi").map(({ pid }) => pid));
      const byPid = new Map(found.map((one) => [one.pid, one]));
      const isPulumis = (one: Found | undefined): boolean =>
        one !== undefined && (pulumis.has(one.pid) || isPulumis(byPid.get(one.parent)));
      for (const one of found) {
        const within = isPulumis(one) ? pulumiEndsWithin : 0;
        if (hard || took > within + endsWithin) send(one.pid, "SIGKILL");
        else if (took >= within) send(one.pid, "SIGTERM");
        else if (pulumis.has(one.pid) && !told) send(one.pid, "SIGINT");
      }
      return took > pulumiEndsWithin + 2 * endsWithin;
    },
    { interval: 100 },
  );
}

/** The programs that carry a run's mark, without this process. Virtual machines go on: they are not the run's programs. */
async function programsOf(id: string): Promise<Found[]> {
  const names = await readdir("/proc").catch(() => []);
  const found = await Promise.all(
    names
      .filter((name) => /^\d+$/.test(name))
      .map(async (name): Promise<Found | undefined> => {
        const pid = Number(name);
        if (pid === process.pid) return undefined;
        const environment = await readFile(`/proc/${pid}/environ`, "latin1").catch(() => "");
        if (!environment.split("\0").includes(`${mark}=${id}`)) return undefined;
        const text = await readFile(`/proc/${pid}/stat`, "utf8").catch(() => "");
        const stat = parseStat(text);
        const comm = text.slice(text.indexOf("(") + 1, text.lastIndexOf(")"));
        return stat && stat.state !== "Z" && !/^(VBox|qemu)/.test(comm)
          ? { pid, parent: stat.parent, name: comm }
          : undefined;
      }),
  );
  return found.filter((one) => one !== undefined);
}
