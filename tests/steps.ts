import { describe, type TestContext, type TestOptions, test as testOf } from "node:test";
import { fault as faultOf } from "./faults/table.ts";

type Run = (context: TestContext) => unknown;
type DefineTest = (name: string, ...optionsAndRun: readonly [Run] | readonly [TestOptions, Run]) => unknown;

/**
 * Tests that build on each other: after the first that fails, the rest is reported as skipped, with the reason. What they
 * would show is not about them, and each could wait for minutes.
 *
 * @returns `test` and `fault` for one suite or file.
 */
export function steps(): { readonly test: DefineTest; readonly fault: typeof faultOf } {
  let failed: string | undefined;
  const test: DefineTest = (name, ...given) => {
    const [options, run] = given.length === 1 ? [{}, given[0]] : given;
    void testOf(name, options, async (context) => {
      if (failed !== undefined) return context.skip(`builds on "${failed}", which failed`);
      failed = name;
      await run(context);
      // One that was given up at its timeout may still end, while others are on their way.
      if (!context.signal.aborted) failed = undefined;
    });
  };
  return { test, fault: (name, run, options) => faultOf(name, run, options, test) };
}

/** A suite. One that is skipped counts as a skipped test: Node counts none of the tests in it. */
export function suite(name: string, options: TestOptions, define: () => void): void {
  if (options.skip) void testOf(name, { skip: options.skip }, () => {});
  else void describe(name, options, define);
}
