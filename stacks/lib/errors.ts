/**
 * An error for the user: what went wrong and where, then the next step. `lab` prints its message without a stack trace and
 * exits with `exitCode`.
 */
export class LabError extends Error {
  override readonly name = "LabError";
  readonly exitCode: number;

  /**
   * @param exitCode 1 failed (default); 2 bad input, nothing was touched; 3 something that lives would be replaced or
   * removed, which was not asked for: nothing was touched; 4 no space is left on a disk; 130 interrupted.
   */
  constructor(message: string, options: ErrorOptions & { readonly exitCode?: number } = {}) {
    super(message, options);
    this.exitCode = options.exitCode ?? 1;
  }
}

/** Bad input, or a conflict: nothing was touched. */
export const refusal = (message: string, cause?: unknown): LabError =>
  new LabError(message, { ...(cause === undefined ? {} : { cause }), exitCode: 2 });

/** Messages of programs and the system about a full disk or an exceeded quota; the last two are apt's and tar's. */
const diskFull =
  /\b(ENOSPC|EDQUOT)\b|no space left on device|disk quota exceeded|don't have enough free space|wrote only \d+ of \d+ bytes/i;

/** Whether an error or its cause is a full disk: this computer's, or one that a program reports. */
export function isDiskFull(error: unknown): boolean {
  if (!(error instanceof Error)) return false;
  const { code } = error as NodeJS.ErrnoException;
  return code === "ENOSPC" || code === "EDQUOT" || diskFull.test(error.message) || isDiskFull(error.cause);
}

/**
 * An error's message for the user, and its exit code. An error that is not a LabError is a bug of this program: it is
 * reported in one sentence all the same, and `LAB_DEBUG` shows its origin.
 */
export function describeError(error: unknown): { readonly message: string; readonly exitCode: number } {
  const message =
    error instanceof LabError || isSystemError(error)
      ? (error as Error).message
      : `this is a bug in lab: ${error instanceof Error ? error.message : String(error)}. Run it again with LAB_DEBUG=1 to see where.`;
  if (isDiskFull(error))
    return {
      message: `${message}\nNo space is left on a disk. Free some (df -h names the full one), then run the same command again.`,
      exitCode: 4,
    };
  return { message, exitCode: error instanceof LabError ? error.exitCode : 1 };
}

/** Whether the operating system refused something: its message names the file and the reason. */
const isSystemError = (error: unknown): boolean =>
  error instanceof Error && typeof (error as NodeJS.ErrnoException).syscall === "string";
