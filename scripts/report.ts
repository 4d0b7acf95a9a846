import {
  type DefaultRenderer,
  Listr,
  type ListrTask,
  type ListrTaskWrapper,
  PRESET_TIMER,
  type SimpleRenderer,
} from "listr2";
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
  const toTask = ({ title, run }: Step): ListrTask => ({
    title,
    task: async (_, task: Task) => {
      const result = await run((line) => {
        task.output = line;
      });
      if (result) task.title = `${title}: ${result}`;
    },
  });
  const timer = { ...PRESET_TIMER, condition: (ms: number) => ms >= 100 };
  for (const group of groups) {
    await new Listr(group.map(toTask), {
      concurrent: true,
      exitOnError: true,
      fallbackRenderer: "simple",
      rendererOptions: { timer, collapseErrors: false, showErrorMessage: false },
      fallbackRendererOptions: { timer },
    }).run();
  }
}
