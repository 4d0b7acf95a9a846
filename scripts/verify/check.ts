/** One thing that was looked at: what should be, what is. */
export interface Check {
  /** Stays the same from run to run: stack, then what it is about, such as `cluster/agent/eth1`. */
  readonly id: string;
  readonly title: string;
  readonly ok: boolean;
  readonly expected: string;
  readonly actual: string;
  /** The next step for the person who sees it fail; empty when it passes. */
  readonly hint: string;
}

/** What somebody who was asked said, or why there is no answer. */
export type Answer<T> =
  | { readonly ok: true; readonly value: T }
  | { readonly ok: false; readonly reason: string };

/** An answer is a value here, not an exception: each check that rests on it says why it could not be made. */
export async function ask<T>(question: () => Promise<T>): Promise<Answer<T>> {
  try {
    return { ok: true, value: await question() };
  } catch (error) {
    return { ok: false, reason: (error as Error).message };
  }
}

/** Looks into an answer, if there is one. */
export const map = <T, U>(answer: Answer<T>, look: (value: T) => U): Answer<U> =>
  answer.ok ? { ok: true, value: look(answer.value) } : answer;

/** The words that what is expected and what is found have in common: their equality is the check. */
export interface Judgement {
  readonly id: string;
  readonly title: string;
  readonly expected: string;
  readonly actual: Answer<string>;
  readonly hint: string;
}

/** The next step where there is nobody to ask. */
export const unanswered = "Bring the lab up first, by `scripts/lab up`.";

/** Passes when what was found reads exactly as what was expected. */
export function judge({ id, title, expected, actual, hint }: Judgement): Check {
  const ok = actual.ok && actual.value === expected;
  if (!actual.ok) return { id, title, ok, expected, actual: `not asked: ${actual.reason}`, hint: unanswered };
  return { id, title, ok, expected, actual: actual.value, hint: ok ? "" : hint };
}
