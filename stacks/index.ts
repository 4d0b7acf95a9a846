import * as pulumi from "@pulumi/pulumi";
import { LabError } from "./lib/errors.ts";
import { root } from "./lib/paths.ts";
import { programOf, readStackFile } from "./model/config.ts";
import { refuseOtherValues } from "./model/stack-config.ts";

// Pulumi maps every line of a stack trace back to its own TypeScript, and needs one for each resource: reading its maps takes
// a tenth of a second. The lines of these programs are right without.
Reflect.deleteProperty(Error, "prepareStackTrace");

/** Runs the stack's program: `cluster` and `cluster-ha` run `cluster.ts`. Its return value becomes the outputs. */
export default async (): Promise<Record<string, unknown>> => {
  const stack = pulumi.getStack();
  try {
    // Plain `pulumi up` must refuse what `lab up` refuses.
    refuseOtherValues(programOf(stack), await readStackFile(stack, root));
    const { default: program } = await import(`./${programOf(stack)}.ts`);
    return await program();
  } catch (error) {
    // Pulumi prints such an error without the stack trace of a bug.
    if (error instanceof LabError)
      throw new pulumi.RunError(`${error.exitCode === 2 ? "refused: " : ""}${error.message}`);
    throw error;
  }
};
