import { rm, stat } from "node:fs/promises";
import { join } from "node:path";
import { LabError } from "../../stacks/lib/errors.ts";
import { ifThere, writeWhole } from "../../stacks/lib/files.ts";
import { labDir } from "../../stacks/lib/paths.ts";

/** Exists while Pulumi runs for a stack, and remains if that run was cut off. */
const mark = (stack: string, folder: string): string => join(folder, stack, "unfinished");

/**
 * Whether the last run of a stack was interrupted or killed. The Kubernetes provider then forgets what it has applied and
 * still waits for, and Pulumi's state is outdated: only a refresh shows the truth.
 */
export const wasCutOff = async (stack: string, folder: string = labDir): Promise<boolean> =>
  (await ifThere(stat(mark(stack, folder)))) !== undefined;

/** Runs Pulumi for a stack and marks it for `wasCutOff`. */
export async function untilDone<T>(
  stack: string,
  work: () => Promise<T>,
  folder: string = labDir,
): Promise<T> {
  await writeWhole(mark(stack, folder), "");
  const done = () => rm(mark(stack, folder), { force: true });
  try {
    const result = await work();
    await done();
    return result;
  } catch (error) {
    if (!(error instanceof LabError && error.exitCode === 130)) await done();
    throw error;
  }
}
