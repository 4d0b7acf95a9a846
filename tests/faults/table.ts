import assert from "node:assert/strict";
import { appendFile } from "node:fs/promises";
import { type TestContext, type TestOptions, test } from "node:test";

/** What came of an injected fault. */
export interface Outcome {
  /** What the lab did, in a few words: "exit 1, the old flags run again". */
  readonly happened: string;
  /** What is gone afterwards: "nothing", or what. A test compares before and after; it does not assume. */
  readonly lost: string;
}

/** A row of the table that `lab test` prints at the end. */
interface Row extends Outcome {
  readonly kind: "fault" | "bad input";
  readonly name: string;
}

/** As `test` of Node's: a name, options, what to run. */
export type Define = (
  name: string,
  options: TestOptions,
  run: (context: TestContext) => Promise<void>,
) => unknown;

/** The table goes to this file, a JSON object a line; `lab test` sets it. */
const tableFile = process.env.K3S_LAB_FAULT_TABLE;

async function note(row: Row): Promise<void> {
  if (tableFile !== undefined) await appendFile(tableFile, `${JSON.stringify(row)}\n`);
}

/**
 * A test that injects one fault and fails when anything is lost.
 * @param name the fault, and the number of `faults` that it stands for: "C1: a wrong flag on a running cluster".
 * @param run injects the fault, asserts what must hold, and says what came of it; or only says why it cannot be injected
 * here, which skips the test and makes no row.
 * @param options.skip the same, where that is known beforehand. Default: false.
 * @param define makes the test. Default: Node's own `test`; `tests/steps.ts` has another.
 */
export function fault(
  name: string,
  run: () => Promise<Outcome | string>,
  options: { timeout?: number; skip?: string | false } = {},
  define: Define = test,
): void {
  define(name, options, async (context) => {
    const outcome = await run();
    if (typeof outcome === "string") return context.skip(outcome);
    await note({ kind: "fault", name, ...outcome });
    assert.equal(outcome.lost, "nothing", `${name}: ${outcome.happened}`);
  });
}

/**
 * A test that a wrong value is refused (exit code 2) with a sentence, before anything is touched.
 * @param run returns the error; undefined where the value was accepted.
 * @param sentence what the sentence must say: where, which value, what is accepted.
 */
export function refused(
  name: string,
  run: () => Promise<(Error & { readonly exitCode?: number }) | undefined>,
  sentence: RegExp,
  options: { timeout?: number } = {},
): void {
  test(name, options, async () => {
    const error = await run();
    assert.ok(error, `${name}: accepted`);
    assert.equal(error.exitCode, 2, `${name}: ${error.message}`);
    assert.match(error.message, sentence);
    await note({ kind: "bad input", name, happened: `exit 2: ${error.message}`, lost: "nothing" });
  });
}
