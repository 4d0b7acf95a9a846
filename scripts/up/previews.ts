import type { PlannedStep } from "../pulumi.ts";

/** What the previews of a run have shown of its stacks, for as long as it holds. */
export class Previews {
  readonly #shown = new Map<string, { readonly refresh: boolean; readonly creates: boolean }>();
  readonly #outdated = new Set<string>();

  /** @param refresh whether the preview read what is really there. */
  note(stack: string, steps: readonly PlannedStep[], refresh: boolean): void {
    this.#shown.set(stack, { refresh, creates: steps.some(createsObject) });
    this.#outdated.delete(stack);
  }

  /** Something was changed: what stands on it is made from other values than its preview. */
  outdate(): void {
    for (const stack of this.#shown.keys()) this.#outdated.add(stack);
  }

  /** Whether another preview is needed to know what a stack's `up` will create. */
  isOutdated(stack: string): boolean {
    return this.#outdated.has(stack);
  }

  /**
   * Whether it is known that a stack's `up` creates no Kubernetes object: what it changes is its own.
   * @param refresh whether that `up` reads what is really there: it creates what is gone.
   */
  createsNothing(stack: string, refresh: boolean): boolean {
    const shown = this.#shown.get(stack);
    return shown?.refresh === refresh && !shown.creates && !this.isOutdated(stack);
  }
}

/** Those of replacements are created too. */
const createsObject = ({ operation, urn, inputs }: PlannedStep): boolean =>
  /create|replace/.test(operation) && /[:$]kubernetes:[^:]/.test(urn) && !isHashed(inputs);

/** Files whose object has a hash of their content in its name: no other stack creates that one. */
const isHashed = ({ immutable }: PlannedStep["inputs"]): boolean => immutable === true;
