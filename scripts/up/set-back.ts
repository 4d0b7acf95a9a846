import type { Changes, PlannedStep } from "../pulumi.ts";
import { createsObject } from "./previews.ts";

/** Makes Pulumi reset fields that kubectl set, such as by `rollout undo`, instead of failing with a conflict. */
export const forceFields = { PULUMI_K8S_ENABLE_PATCH_FORCE: "true" };

/** The API server's words where a field has another owner. */
const conflict = /Apply failed with \d+ conflict/;

/**
 * Runs `up` and resets fields that kubectl set. A create is never forced: if two stacks create one object at the same
 * moment, the API server must refuse the second. So a run that creates objects forces only if it fails with a conflict, and
 * then the existing objects alone.
 * @param attempt runs `up` with additional variables, without the resources to exclude and their dependents.
 */
export async function upWithForcedFields(
  createsNothing: boolean,
  attempt: (environment: Record<string, string>, exclude?: readonly string[]) => Promise<Changes>,
  preview: () => Promise<readonly PlannedStep[]>,
): Promise<Changes> {
  if (createsNothing) return attempt(forceFields);
  try {
    return await attempt({});
  } catch (error) {
    if (!(error instanceof Error && conflict.test(error.message))) throw error;
    const created = (await preview()).filter(createsObject).map(({ urn }) => urn);
    const changes = await attempt(forceFields, created);
    return { ...changes, ...(await attempt({})) };
  }
}
