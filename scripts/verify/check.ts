/** One thing that was checked: what should be, what is. */
export interface Check {
  /** Stays the same from run to run: stack, then what it is about, such as `cluster/agent/eth1`. */
  readonly id: string;
  readonly title: string;
  readonly ok: boolean;
  readonly expected: string;
  readonly actual: string;
  /** The next step for the person who sees it fail; empty when it passes. */
  readonly hint: string;
  /** Of one that fails: it is about what has happened, which no run of `lab up` changes. */
  readonly isPast?: true;
  /** What an item of a spec is worth. Default: it is none. */
  readonly points?: number;
}

/** What was found where more than one thing is right. */
export interface Finding extends Pick<Check, "ok" | "isPast"> {
  readonly found: string;
}

/** A check to run. It passes when what is found reads exactly as what is expected, unless that says itself that it is right. */
export interface CheckSpec extends Pick<Check, "id" | "title" | "expected" | "hint"> {
  /** Finds out what is. Throws where there is no answer: each check that rests on one says why it could not be made. */
  readonly actual: () => Promise<string | Finding>;
}

/** The next step where there is nobody to ask. */
export const unanswered = "Bring the lab up first, by `scripts/lab up`.";

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
    const reason = `not asked: ${(error as Error).message}`;
    return { id, title, ok: false, expected, actual: reason, hint: unanswered };
  }
}

/** Runs checks side by side. @param stack begins each check's id. @param groups some are known only once something answered. */
export async function runChecks(
  stack: string,
  groups: readonly (readonly CheckSpec[] | Promise<readonly CheckSpec[]>)[],
): Promise<Check[]> {
  const checks = groups.map(async (group) =>
    Promise.all((await group).map((one) => runCheck({ ...one, id: `${stack}/${one.id}` }))),
  );
  return (await Promise.all(checks)).flat();
}

/** Asks now, for several checks; one that is never awaited may fail in silence. */
export function askOnce<T>(answer: Promise<T>): Promise<T> {
  answer.catch(() => {});
  return answer;
}
