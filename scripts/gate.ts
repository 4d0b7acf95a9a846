import { type Ask, confirmLosses } from "./confirm.ts";
import type { Loss } from "./losses.ts";

export interface StackPreview {
  readonly losses: readonly Loss[];
  /** Whether nothing has changed since its last `up`. */
  readonly isUpToDate: boolean;
}

/**
 * Asks for what exists and would be lost, before any stack is touched.
 * @param options.isUnreachable whether a stack's apps go to a cluster that this run brings up and that does not answer yet.
 * @param options.allowed whether everything may go.
 * @returns `deferred`: the stacks that are previewed when their cluster is up; `upToDate`: whether no stack has changed.
 * @throws LabError (exit code 3) where it may not go; what `preview` threw.
 */
export async function openGate(
  stacks: readonly string[],
  {
    preview,
    isUnreachable,
    allowed,
    ask,
  }: {
    readonly preview: (stack: string) => Promise<StackPreview>;
    readonly isUnreachable: (stack: string) => Promise<boolean>;
    readonly allowed: boolean;
    readonly ask?: Ask;
  },
): Promise<{ readonly deferred: ReadonlySet<string>; readonly upToDate: boolean }> {
  const previews = await Promise.all(
    stacks.map(async (stack) => ((await isUnreachable(stack)) ? undefined : await preview(stack))),
  );
  const losses = previews.flatMap((one) => one?.losses ?? []);
  await confirmLosses(losses, allowed, ask);
  return {
    deferred: new Set(stacks.filter((_, index) => previews[index] === undefined)),
    upToDate: previews.every((one) => one?.isUpToDate),
  };
}
