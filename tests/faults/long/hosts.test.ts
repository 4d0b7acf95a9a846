import assert from "node:assert/strict";
import { rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, describe } from "node:test";
import { type Checkout, copyCheckout, type Outcome } from "../../e2e/checkout.ts";
import { type Fleet, startFleet } from "../../hosts/fleet.ts";
import { steps } from "../../steps.ts";

// A server and an agent that were there before the lab: renamed, re-keyed, reached in another way, switched off.

const stack = "cluster-hosts";
let fleet: Fleet;
let checkout: Checkout;
let cluster: string;

/** Writes the stack file; `agent` is what it calls the agent, and `more` what it says of it beside. */
async function write(
  agent = "a1",
  more?: string,
  serverArgs = "[--write-kubeconfig-mode=644]",
): Promise<void> {
  const machines = [
    fleet.machine("s1", "server"),
    fleet.machine("a1", "agent", more).replace("name: a1", `name: ${agent}`),
  ];
  await writeFile(
    join(checkout.directory, `Pulumi.${stack}.yaml`),
    fleet.stackFile(machines, `{serverArgs: ${serverArgs}}`),
  );
}

const succeeded = (outcome: Outcome): Promise<Outcome> => fleet.succeeded(outcome);
const preview = (...options: string[]) => checkout.pulumi("preview", stack, ...options);
const up = async () => succeeded(await checkout.lab("up", stack));
/** The cluster, and when K3s was installed on the agent. */
const state = async (): Promise<string> => {
  const kubeconfig = join(checkout.directory, ".lab", stack, "kubeconfig");
  const get = ["get", "namespace/kube-system", "node/a1", "--output=jsonpath={.items[*].metadata.uid}"];
  return (await succeeded(await checkout.run("kubectl", "--kubeconfig", kubeconfig, ...get))).stdout;
};
const lost = async () => ((await state()) === cluster ? "nothing" : "the cluster or its agent");

describe("hosts that are reached differently", { concurrency: false }, () => {
  const { fault } = steps();
  before(async () => {
    fleet = await startFleet(["s1", "a1"], console.log);
    checkout = await copyCheckout({ besideLabs: true });
    await write();
    await up();
    cluster = await state();
  });
  after(async () => {
    await checkout.lab("down", stack);
    await checkout.remove();
    await fleet.remove();
  });

  fault("C5: a host key is added to the file, and the recorded one is removed", async () => {
    await rm(join(checkout.directory, ".lab", "ssh", `a1.${stack}`, "known_hosts"));
    await succeeded(await preview("--expect-no-changes"));
    await write("a1", `ssh: {hostKey: "${await fleet.hostKey("a1")}"}`);
    const { all } = await succeeded(await preview());
    assert.match(all, /~ 1 to update/);
    assert.doesNotMatch(all, /to (create|delete|replace)/);
    await up();
    await succeeded(await preview("--expect-no-changes"));
    await write();
    await up();
    return { happened: "changed in place", lost: await lost() };
  });

  fault("C4: a host is renamed", async () => {
    await write("worker");
    const { exitCode, all } = await checkout.lab("up", stack);
    assert.equal(exitCode, 2, all);
    assert.match(all, /the host worker is already the node a1 of this cluster, and K3s cannot rename a node/);
    await write();
    await succeeded(await preview("--expect-no-changes"));
    return { happened: "exit 2 with one sentence", lost: await lost() };
  });

  fault("Medium: a dead host does not block unchanged hosts", async () => {
    await fleet.stop("a1");
    await write("a1", undefined, "[--write-kubeconfig-mode=644, --kubelet-arg=max-pods=177]");
    const changed = await checkout.lab("up", stack);
    // The verification says that a node is missing.
    assert.equal(changed.exitCode, 1, changed.all);
    const unit = await fleet.on("s1", "cat", "/etc/systemd/system/k3s.service");
    await fleet.start("a1");
    assert.match(unit, /max-pods=177/, changed.all);
    await up();
    await succeeded(await preview("--expect-no-changes"));
    return { happened: "the server changed, the agent stayed as it was", lost: await lost() };
  });
});
