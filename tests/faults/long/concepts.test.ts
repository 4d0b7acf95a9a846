import assert from "node:assert/strict";
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, describe } from "node:test";
import pWaitFor from "p-wait-for";
import { type Checkout, copyCheckout, type Outcome } from "../../e2e/checkout.ts";
import { steps } from "../../steps.ts";

// What outlives what, on every kind of volume, on two machines. The tests build on each other.

let checkout: Checkout;
const file = "Pulumi.concepts.yaml";
const succeeded = (outcome: Outcome): Promise<Outcome> => checkout.succeeded(outcome);
const kubectl = async (...args: string[]): Promise<string> => {
  const { exitCode, all, stdout } = await checkout.run("kubectl", "--namespace", "concepts", ...args);
  if (exitCode !== 0) throw new Error(all);
  return stdout.trim();
};
const ofPods = (field: string) => kubectl("get", "pods", `--output=jsonpath={.items[*].${field}}`);

/** @returns how many pods of before each volume has, by the name of its check. */
async function earlier(): Promise<Record<string, string | undefined>> {
  const { stdout } = await succeeded(await checkout.lab("verify", "concepts", "--json", "--wait", "180"));
  const { checks } = JSON.parse(stdout) as { checks: readonly { id: string; actual: string }[] };
  const volumes = checks.filter(({ id }) => id.startsWith("concepts/volumes/"));
  return Object.fromEntries(
    volumes.map(({ id, actual }) => [id.split("/").at(-1), /(\d+) earlier/.exec(actual)?.[1] ?? actual]),
  );
}

const alone = { "empty-dir": "each pod finds itself alone" };

describe("which data survives what, on every kind of volume", { concurrency: false }, () => {
  const { test, fault } = steps();
  before(async () => {
    checkout = await copyCheckout();
    await succeeded(await checkout.lab("up", "cluster", "concepts"));
  });
  after(async () => {
    await checkout.lab("down", "cluster", "concepts", "--replace");
    await checkout.remove();
  });

  const text = () => readFile(join(checkout.directory, file), "utf8");
  const faults = [
    ["claim: 64Mi}", "claim: 65Mi}", /static\.claim: "65Mi" is not accepted; expected at most 64Mi/],
    ["local-path", "fast", /no StorageClass "fast"; it has local-path\. Set k3s-lab:dynamic\.storageClass/],
    [
      "static: {volume: 64Mi, claim: 64Mi}",
      "static: {volume: 64Mi, claim: 32Mi}",
      /static\.claim: .* \(64Mi\)/,
    ],
    ["nodePort: 30080", "nodePort: 80", /services\.nodePort: 80 is not accepted/],
  ] as const;
  for (const [from, to, message] of faults)
    test(`${to} is refused, and nothing changes`, async () => {
      const before = await text();
      await writeFile(join(checkout.directory, file), before.replace(from, to));
      const { exitCode, all } = await checkout.lab("up", "concepts");
      assert.equal(exitCode, 2, all);
      assert.match(all, message);
      await writeFile(join(checkout.directory, file), before);
    });

  fault("a pod's container ends: all volumes stay", async () => {
    await kubectl("exec", "deployment/web", "--", "node", "--eval", "process.kill(1)");
    const restarts = () => ofPods("status.containerStatuses[0].restartCount");
    await pWaitFor(async () => (await restarts()).includes("1"), { interval: 500, timeout: 90_000 });
    assert.deepEqual(await earlier(), { ...alone, "host-path": "0", "persistent-volume": "0", claim: "0" });
    return { happened: "it restarted in the same pod", lost: "nothing" };
  });

  fault("all pods are deleted: data inside the pod is gone", async () => {
    await kubectl("delete", "pods", "--all", "--force", "--grace-period=0");
    assert.deepEqual(await earlier(), { ...alone, "host-path": "2", "persistent-volume": "2", claim: "2" });
    return { happened: "new pods found the earlier ones' data", lost: "nothing" };
  });

  fault("their node restarts: in-memory data is gone", async () => {
    const [node] = (await ofPods("spec.nodeName")).split(" ");
    const before = await ofPods("status.podIP");
    // While it begins, nobody may answer.
    const addresses = () => ofPods("status.podIP").catch(() => before);
    await checkout.output("docker", "restart", "--time=1", `k3s-lab-cluster-${node}`);
    await pWaitFor(async () => (await addresses()) !== before, { interval: 500, timeout: 120_000 });
    assert.deepEqual(await earlier(), { ...alone, "host-path": "0", "persistent-volume": "0", claim: "2" });
    return { happened: "the same pods restarted", lost: "nothing" };
  });

  test("`lab down` names both claims and asks; then nothing of the stack is left in the cluster", async () => {
    const asked = await checkout.lab("down", "concepts");
    assert.equal(asked.exitCode, 3, asked.all);
    for (const claim of ["static", "dynamic"])
      assert.ok(
        asked.all.includes(`removed (stack concepts): the volume concepts/${claim} (64Mi)`),
        asked.all,
      );
    await succeeded(await checkout.lab("down", "concepts", "--replace"));
    assert.doesNotMatch(await kubectl("get", "namespaces,persistentvolumes", "--output=name"), /concepts/);
  });
});
