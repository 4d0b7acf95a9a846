import assert from "node:assert/strict";
import type { Checkout } from "./checkout.ts";

/** Does an exercise from its start to its end: not repaired, repaired by the solution in its file, and gone. */
export async function exercised({ lab, succeeded }: Checkout, name: string): Promise<void> {
  const exercise = (verb: string, ...options: string[]) => lab("exercise", verb, name, ...options);
  const begun = await succeeded(await exercise("start", "--json"));
  const { namespace } = JSON.parse(begun.stdout) as { readonly namespace: string };
  assert.equal(namespace, `exercise-${name}`);
  const broken = await exercise("check", "--json");
  assert.equal(broken.exitCode, 1, `${name} passes although it is broken: ${broken.all}`);
  await succeeded(await exercise("solve"));
  await succeeded(await exercise("check", "--wait", "90"));
  await succeeded(await exercise("reset"));
}
