/**
 * An error made for the person at the keyboard: what went wrong and where, then the next step.
 * `lab` prints its message without a stack trace and exits with `exitCode`.
 */
export class LabError extends Error {
  override readonly name = "LabError";
  readonly exitCode: number;

  /** @param exitCode Default: 1. 2 is for bad input: nothing was touched. */
  constructor(message: string, options: ErrorOptions & { readonly exitCode?: number } = {}) {
    super(message, options);
    this.exitCode = options.exitCode ?? 1;
  }
}
