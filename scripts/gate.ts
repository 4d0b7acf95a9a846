import { type Ask, confirmLosses } from "./confirm.ts";
import type { Loss } from "./losses.ts";

export interface StackPreview {
  readonly losses: readonly Loss[];
  /** Whether nothing has changed since its last `up`. */
  readonly isUpToDate: boolean;
}

/**
 * Asks for confirmation of losses before any stack is touched.
 * @param options.isUnreachable whether a stack's apps run on a cluster that this run has yet to start.
 * @param options.allowed whether everything may be lost.
 * @returns `deferred`: stacks to preview once their cluster is up; `upToDate`: whether no stack has changed.
 * @throws LabError (exit code 3) if a loss is refused; whatever `preview` throws.
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
