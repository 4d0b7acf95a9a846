import type { Check } from "../verify/check.ts";
import type { Cluster } from "./cluster.ts";
import type { Spec } from "./model.ts";
import { askNow, prove } from "./proof.ts";

/** Checks a cluster against a spec, item by item. Changes nothing. */
export async function grade(cluster: Cluster, { items }: Spec): Promise<readonly Check[]> {
  const asked = askNow(cluster);
  return await Promise.all(
    items.map(async ({ points, ...item }, index) => {
      const check = await prove(item, `spec/${index + 1}`, "default", asked);
      return { ...check, title: `${check.title} (${points} ${points === 1 ? "point" : "points"})`, points };
    }),
  );
}
