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
  /** Does the work; what it returns, if anything, is shown behind the title. */
  readonly run: (progress: Progress, signal: AbortSignal) => Promise<string | undefined>;
  /**
   * Milliseconds that the step is waited for once the run is stopped, because it ends in good order. Default: 0.
   */
  readonly endsWithin?: number;
  /** Whether a terminal keeps every line, not the last alone. Default: false. */
  readonly keepsLines?: boolean;
}

export interface Stopping {
  readonly signal?: AbortSignal;
  /** Ends the programs that the steps have started. */
  readonly endChildren?: () => Promise<void>;
}

type Task = ListrTaskWrapper<object, typeof DefaultRenderer, typeof SimpleRenderer>;

/**
 * Runs groups of steps, one group after the other, the steps of a group side by side. On a terminal each step has a
 * spinner, its last line and its time; elsewhere each line is printed as it comes, with the name of its step.
 *
 * The first step that fails ends its neighbours, and no further group begins; so does an interrupt.
 * @throws what the first step threw that failed, or why the run was interrupted.
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
    /** What a step threw that was interrupted, and knows more of that than others. */
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
          // At once, while neighbours still end; the caller tells the whole story at the end.
          throw new Error(firstLine(error), { cause: error });
        }
      },
    });
    const list = new Listr(group.map(toTask), {
      concurrent: true,
      exitOnError: false,
      // An interrupt is answered by ending in good order, not at once.
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

/** What work comes to; once the signal aborts it has so many milliseconds left. Default: none. */
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
    // An error after that has no reader.
    work.catch(() => {});
  }
}

const firstLine = (error: unknown): string =>
  (error instanceof Error ? error.message : String(error)).split("\n", 1)[0] ?? "";
