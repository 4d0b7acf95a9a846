import {
  type DefaultRenderer,
  Listr,
  type ListrTask,
  type ListrTaskWrapper,
  PRESET_TIMER,
  type SimpleRenderer,
} from "listr2";
import { LabError } from "../stacks/lib/errors.ts";
import type { Progress } from "../stacks/lib/progress.ts";

export interface Step {
  readonly title: string;
  /** Does the work; its result, if any, is shown after the title. */
  readonly run: (progress: Progress, signal: AbortSignal) => Promise<string | undefined>;
  /**
   * Milliseconds that the step gets to end gracefully once the run is stopped. Default: 0.
   */
  readonly endsWithin?: number;
  /** Whether a terminal keeps every line instead of only the last. Default: false. */
  readonly keepsLines?: boolean;
}

export interface Stopping {
  readonly signal?: AbortSignal;
  /** Ends the programs that the steps started. */
  readonly endChildren?: () => Promise<void>;
}

type Task = ListrTaskWrapper<object, typeof DefaultRenderer, typeof SimpleRenderer>;

/**
 * Runs groups of steps, one group after the other, the steps of a group in parallel. On a terminal each step has a
 * spinner, its last line and its time; elsewhere each line is printed as it comes, with the name of its step.
 *
 * The first failure, or an interrupt, aborts the other steps, and no further group starts.
 * @throws the error of the first step that failed, or the reason for the interrupt.
 */
export async function runSteps(
  groups: readonly (readonly Step[])[],
  { signal: outer = new AbortController().signal, endChildren = async () => {} }: Stopping = {},
): Promise<void> {
  const timer = { ...PRESET_TIMER, condition: (ms: number) => ms >= 100 };
  for (const group of groups) {
    outer.throwIfAborted();
    const failed = new AbortController();
    const signal = AbortSignal.any([outer, failed.signal]);
    /** The error of an interrupted step, which has more detail. */
    let interrupted: unknown;
    const toTask = ({ title, run, endsWithin = 0, keepsLines = false }: Step): ListrTask => ({
      title,
      ...(keepsLines
        ? { rendererOptions: { outputBar: Number.POSITIVE_INFINITY, persistentOutput: true } }
        : {}),
      task: async (_, task: Task) => {
        const told = process.stdout.isTTY ? "" : `${title}: `;
        try {
          const progress: Progress = (line) => {
            task.output = `${told}${line}`;
          };
          const result = await unlessStopped(run(progress, signal), signal, endsWithin);
          if (result) task.title = `${title}: ${result}`;
        } catch (error) {
          if (signal.aborted) {
            if (error instanceof LabError && error.exitCode === 130 && error !== outer.reason)
              interrupted ??= error;
            throw new Error("stopped", { cause: error });
          }
          failed.abort(error);
          void endChildren().catch(() => {});
          // Show it at once, while other steps still end; the caller prints the whole error at the end.
          throw new Error(firstLine(error), { cause: error });
        }
      },
    });
    const list = new Listr(group.map(toTask), {
      concurrent: true,
      exitOnError: false,
      // The lab handles interrupts itself, gracefully.
      registerSignalListeners: false,
      fallbackRenderer: "simple",
      rendererOptions: { timer, collapseErrors: false },
      fallbackRendererOptions: { timer },
    });
    await list.run();
    if (failed.signal.aborted) throw failed.signal.reason;
    if (outer.aborted) throw interrupted ?? outer.reason;
  }
}

/** The result of work, which gets so many milliseconds once the signal aborts. Default: none. */
export async function unlessStopped<T>(work: Promise<T>, signal: AbortSignal, endsWithin = 0): Promise<T> {
  const stopped = Promise.withResolvers<never>();
  let timer: NodeJS.Timeout | undefined;
  const stop = () => {
    timer = setTimeout(() => stopped.reject(signal.reason), endsWithin);
  };
  if (signal.aborted) stop();
  signal.addEventListener("abort", stop, { once: true });
  try {
    return await Promise.race([work, stopped.promise]);
  } finally {
    clearTimeout(timer);
    signal.removeEventListener("abort", stop);
    // Ignore a later error.
    work.catch(() => {});
  }
}

const firstLine = (error: unknown): string =>
  (error instanceof Error ? error.message : String(error)).split("\n", 1)[0] ?? "";
