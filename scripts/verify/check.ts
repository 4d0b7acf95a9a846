/** A check's result: what was expected, and what was found. */
export interface Check {
  /** Stable from run to run: the stack, then the subject, such as `cluster/agent/eth1`. */
  readonly id: string;
  readonly title: string;
  readonly ok: boolean;
  readonly expected: string;
  readonly actual: string;
  /** The next step if it fails; empty if it passes. */
  readonly hint: string;
  /** The failure is about a past event, which no run of `lab up` changes. */
  readonly isPast?: true;
  /** The points of a spec's item. Default: not an item. */
  readonly points?: number;
}

/** A finding, for checks with several acceptable results. */
export interface Finding extends Pick<Check, "ok" | "isPast"> {
  readonly found: string;
}

/** A check to run. It passes if the result equals the expected text, unless the finding sets `ok` itself. */
export interface CheckSpec extends Pick<Check, "id" | "title" | "expected" | "hint"> {
  /** Reads the actual state. Throws if there is no answer: each dependent check reports why it could not be made. */
  readonly actual: () => Promise<string | Finding>;
}

/** The next step if nothing answers. */
export const unanswered = "Bring the lab up first: `scripts/lab up`.";

export async function runCheck({ id, title, expected, actual, hint }: CheckSpec): Promise<Check> {
  try {
    const answer = await actual();
    const finding: Finding = typeof answer === "string" ? { found: answer, ok: answer === expected } : answer;
    const { found, ok, isPast } = finding;
    return {
      id,
      title,
      ok,
      expected,
      actual: found,
      hint: ok ? "" : hint,
      ...(isPast && !ok ? { isPast } : {}),
    };
  } catch (error) {
    const reason = `not checked: ${(error as Error).message}`;
    return { id, title, ok: false, expected, actual: reason, hint: unanswered };
  }
}

/** Runs checks in parallel. @param stack begins each check's id. @param groups some depend on an answer. */
export async function runChecks(
  stack: string,
  groups: readonly (readonly CheckSpec[] | Promise<readonly CheckSpec[]>)[],
): Promise<Check[]> {
  const checks = groups.map(async (group) =>
    Promise.all((await group).map((one) => runCheck({ ...one, id: `${stack}/${one.id}` }))),
  );
  return (await Promise.all(checks)).flat();
}

/** Starts a query that several checks share; if it is never awaited, its failure is ignored. */
export function askOnce<T>(answer: Promise<T>): Promise<T> {
  answer.catch(() => {});
  return answer;
}
