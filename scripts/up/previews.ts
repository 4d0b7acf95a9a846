import type { PlannedStep } from "../pulumi.ts";

/** The results of a run's previews, as long as they are valid. */
export class Previews {
  readonly #shown = new Map<string, { readonly refresh: boolean; readonly creates: boolean }>();
  readonly #outdated = new Set<string>();

  /** @param refresh whether the preview read the actual state. */
  note(stack: string, steps: readonly PlannedStep[], refresh: boolean): void {
    this.#shown.set(stack, { refresh, creates: steps.some(createsObject) });
    this.#outdated.delete(stack);
  }

  /** Something changed: its dependents may now differ from their previews. */
  outdate(): void {
    for (const stack of this.#shown.keys()) this.#outdated.add(stack);
  }

  /** Whether another preview is needed to know what a stack's `up` will create. */
  isOutdated(stack: string): boolean {
    return this.#outdated.has(stack);
  }

  /**
   * Whether a stack's `up` is known to create no Kubernetes object, so that it only changes its own.
   * @param refresh whether that `up` reads the actual state: it recreates what is gone.
   */
  createsNothing(stack: string, refresh: boolean): boolean {
    const shown = this.#shown.get(stack);
    return shown?.refresh === refresh && !shown.creates && !this.isOutdated(stack);
  }
}

/** Replacements create objects too. */
export const createsObject = ({ operation, urn, inputs }: PlannedStep): boolean =>
  /create|replace/.test(operation) && /[:$]kubernetes:[^:]/.test(urn) && !isHashed(inputs);

/** Immutable objects, whose name contains a hash of their content: no other stack creates the same. */
const isHashed = ({ immutable }: PlannedStep["inputs"]): boolean => immutable === true;
