import {
  type DefaultRenderer,
  Listr,
  type ListrTask,
  type ListrTaskWrapper,
  PRESET_TIMER,
  type SimpleRenderer,
} from "listr2";
import { LabError } from "./errors.ts";
import type { Progress } from "./progress.ts";

/** One step of long work. */
export interface Step {
  readonly title: string;
  /** Does the work; what it returns, if anything, is shown behind the title. */
  readonly run: (progress: Progress) => Promise<string | undefined>;
}

type Task = ListrTaskWrapper<object, typeof DefaultRenderer, typeof SimpleRenderer>;

/**
 * Runs groups of steps, one group after the other, the steps of a group side by side. On a terminal each step has a
 * spinner, its last line and its time; elsewhere each line is printed as it comes, with the name of its step.
 */
export async function runSteps(groups: readonly (readonly Step[])[]): Promise<void> {
  const failures: unknown[] = [];
  const toTask = ({ title, run }: Step): ListrTask => ({
    title,
    task: async (_, task: Task) => {
      const told = process.stdout.isTTY ? "" : `${title}: `;
      try {
        const result = await run((line) => {
          task.output = `${told}${line}`;
        });
        if (result) task.title = `${title}: ${result}`;
      } catch (error) {
        failures.push(error);
        // The caller tells the whole story once, at the end.
        throw new Error("failed, see below");
      }
    },
  });
  const timer = { ...PRESET_TIMER, condition: (ms: number) => ms >= 100 };
  for (const group of groups) {
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
    if (failures.length === 1) throw failures[0];
    if (failures.length > 1)
      throw new LabError(failures.map((error) => (error as Error).message).join("\n"), {
        cause: failures[0],
      });
  }
}
