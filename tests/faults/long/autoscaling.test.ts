import assert from "node:assert/strict";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, describe } from "node:test";
import pWaitFor from "p-wait-for";
import { z } from "zod";
import { type Checkout, copyCheckout } from "../../e2e/checkout.ts";
import { kubectlOf } from "../../e2e/k3d.ts";
import { steps } from "../../steps.ts";

// The API of the guest book under load, on k3d and on machines: its pods follow its CPU, up and down again, and nothing of
// the lab takes that for a fault. The tests build on each other.

/** What the stack file says of the API's pods. */
const bounds = "{min: 2, max: 4, cpu: 50}";

let checkout: Checkout;
let kubectl: ReturnType<typeof kubectlOf>;
const replicas = async (): Promise<number> =>
  Number(await kubectl("get", "deployment", "api", "--output=jsonpath={.spec.replicas}"));
const podsSchema = z.object({
  items: z.array(
    z.object({ metadata: z.object({ name: z.string(), deletionTimestamp: z.string().optional() }) }),
  ),
});
/** The pods of the API that are not about to end. */
const pods = async (): Promise<string[]> => {
  const text = await kubectl("get", "pods", "--selector=app.kubernetes.io/name=api", "--output=json");
  const { items } = podsSchema.parse(JSON.parse(text));
  return items.flatMap(({ metadata }) => (metadata.deletionTimestamp === undefined ? [metadata.name] : []));
};
const outcomeSchema = z.object({
  requests: z.int(),
  failed: z.int(),
  apps: z.array(
    z.object({
      app: z.string(),
      replicas: z.object({ before: z.int(), most: z.int(), after: z.int() }),
    }),
  ),
});

for (const cluster of ["k3d", "cluster"])
  describe(`the guest book's API is autoscaled on ${cluster}`, { concurrency: false }, () => {
    const { fault } = steps();
    const stack = `my-app-on-${cluster}`;
    const file = `Pulumi.${stack}.yaml`;
    const changed = async (from: string, to: string): Promise<void> => {
      await checkout.edit(file, `api: ${from}`, `api: ${to}`);
      await checkout.succeeded(await checkout.lab("up", stack));
    };
    before(async () => {
      checkout = await copyCheckout();
      kubectl = (...args) => kubectlOf(checkout, cluster)("--namespace", "my-app", ...args);
      await writeFile(
        join(checkout.directory, file),
        `config:\n  k3s-lab:cluster: {stack: ${cluster}}\n  k3s-lab:tls: {}\n  k3s-lab:replicas: {frontend: 2, api: ${bounds}, admin: 1}\n`,
      );
      await checkout.succeeded(await checkout.lab("up", cluster, stack));
    });
    after(async () => {
      await checkout.lab("down", cluster, stack, "--replace");
      await checkout.remove();
    });

    fault("a load on the guest book: pods are added and removed, and no request is lost", async () => {
      const load = checkout.lab("load", stack, "--duration", "75", "--json");
      await pWaitFor(async () => (await replicas()) > 2, { interval: 1000, timeout: 75_000 }).catch(
        async (cause) => assert.fail(`no pod was added (${cause}): ${(await load).all}`),
      );
      // What the autoscaler chose is nobody's drift.
      await checkout.succeeded(await checkout.pulumi("preview", stack, "--expect-no-changes"));
      const { all } = await checkout.succeeded(await checkout.lab("up", stack));
      assert.match(all, new RegExp(`Stack ${stack}: no change`));
      assert.doesNotMatch(all, /drift/);
      await checkout.succeeded(await checkout.pulumi("preview", stack, "--refresh", "--expect-no-changes"));
      const { stdout, exitCode, all: said } = await load;
      assert.equal(exitCode, 0, said);
      const { requests, failed, apps } = outcomeSchema.parse(JSON.parse(stdout));
      const api = apps.find(({ app }) => app === "api")?.replicas;
      assert.ok(api && api.before === 2 && api.most > 2 && api.after === 2, stdout);
      return {
        happened: `${requests} requests, at most ${api.most} pods`,
        lost: failed === 0 ? "nothing" : said,
      };
    });

    fault("the number of pods is fixed, then autoscaled again: no pod is lost", async () => {
      const refused = await checkout.lab("scale", "api", "3", "--stack", stack);
      assert.equal(refused.exitCode, 2, refused.all);
      assert.match(refused.all, /Change min and max in k3s-lab:replicas\.api/);
      const first = await pods();
      await changed(bounds, "3");
      const fixed = await pods();
      assert.equal(await kubectl("get", "horizontalpodautoscalers", "--output=name"), "");
      assert.deepEqual([fixed.length, first.filter((name) => !fixed.includes(name))], [3, []]);
      // So little CPU is used at any time: the autoscaler itself takes no pod away.
      await changed("3", "{min: 2, max: 3, cpu: 1}");
      const [count, left] = [await replicas(), await pods()];
      return {
        happened: `${first.length} pods, then ${fixed.length}, then ${count}`,
        lost: fixed.filter((name) => !left.includes(name)).join() || "nothing",
      };
    });
  });
