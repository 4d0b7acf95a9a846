import assert from "node:assert/strict";
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, describe } from "node:test";
import pWaitFor from "p-wait-for";
import { z } from "zod";
import { type Checkout, copyCheckout, type Outcome } from "../../e2e/checkout.ts";
import { ingress, kubectlOf } from "../../e2e/k3d.ts";
import { steps } from "../../steps.ts";

// What is written into the guest book, through all that may happen to the database's pods, nodes and volumes, on a cluster of
// k3d with two nodes. The tests build on each other.

let checkout: Checkout;
const stack = "my-app-k3d";
const file = `Pulumi.${stack}.yaml`;
/** What was written so far. */
const written: string[] = [];

const succeeded = (outcome: Outcome): Promise<Outcome> => checkout.succeeded(outcome);
const kubectl = (...args: string[]): Promise<string> =>
  kubectlOf(checkout, "k3d")("--namespace", "my-app", ...args);
const docker = (...args: string[]): Promise<string> => checkout.output("docker", ...args);
const entry = (pod: string, ...args: string[]) => kubectl("exec", pod, "--", "postgres-entry", ...args);
const up = async () => succeeded(await checkout.lab("up", stack));
const poll = { interval: 500, timeout: 120_000 };

const curl = (...args: string[]): Promise<string> =>
  checkout.output(
    ...(["curl", "--silent", "--fail", "--max-time", "30", "--retry", "20", "--retry-delay", "1"] as const),
    ...(["--retry-all-errors", "--header", "Host: my-app.com"] as const),
    ...[...args, `http://${ingress}/api/entries`],
  );

async function write(text: string): Promise<void> {
  await curl("--json", JSON.stringify({ name: "Ann", text }));
  written.push(text);
}

const bookSchema = z.object({ entries: z.array(z.object({ text: z.string() })) });

/** What of all that was written is lost, once whoever serves reads has caught up. */
async function lost(): Promise<string> {
  let missing: string[] = [];
  await pWaitFor(async () => {
    const { entries } = bookSchema.parse(JSON.parse(await curl()));
    missing = written.filter((text) => !entries.some((one) => one.text === text));
    return missing.length === 0;
  }, poll).catch(() => {});
  return missing.join(", ") || "nothing";
}

const nodeOf = (pod: string) => kubectl("get", "pod", pod, "--output=jsonpath={.spec.nodeName}");
const inVolume = async (node: string, command: string): Promise<string> =>
  docker("exec", node, "sh", "-c", `cd /var/lib/rancher/k3s/storage/*_my-app_data-db-0 && ${command}`);
const saysIn = (pod: string, words: string) =>
  pWaitFor(async () => (await kubectl("logs", pod).catch(() => "")).includes(words), poll);

/** The volume of db-0 is empty from now on, as on a recreated node; its pod and others restart at that moment. */
async function loseVolume(...others: string[]): Promise<string> {
  const node = await nodeOf("db-0");
  await inVolume(node, "rm -rf data");
  await kubectl("delete", "pod", "db-0", ...others, "--grace-period=2", "--wait=false");
  return node;
}

describe("the guest book's data and faults of its database", {
  concurrency: false,
}, () => {
  const { fault } = steps();
  before(async () => {
    checkout = await copyCheckout();
    await checkout.edit("stacks/k3d.yaml", "agents: 0", "agents: 1");
    const text = await readFile(join(checkout.directory, "Pulumi.my-app.yaml"), "utf8");
    const plain = text.replace("{stack: cluster}", "{stack: k3d}").replace(/^ {2}k3s-lab:tls: .*\n/m, "");
    await writeFile(join(checkout.directory, file), plain);
    await succeeded(await checkout.lab("up", "k3d", stack));
    await write("the first");
  });
  after(async () => {
    await checkout.lab("down", "k3d", stack, "--replace");
    await checkout.remove();
  });

  fault("db-0's node is drained", async () => {
    const node = await nodeOf("db-0");
    const log = kubectl("logs", "db-0", "--follow", "--tail=5");
    await kubectl("drain", node, "--ignore-daemonsets", "--delete-emptydir-data", "--timeout=120s");
    assert.match(await log, /database system is shut down/, "PostgreSQL ended in good order");
    await kubectl("uncordon", node);
    await write("after a drain");
    return { happened: "its pod waits for the node, whose volume it is on", lost: await lost() };
  });

  fault("db-0's node restarts", async () => {
    await docker("restart", "--time=1", await nodeOf("db-0"));
    await pWaitFor(
      () =>
        write("after a restart").then(
          () => true,
          () => false,
        ),
      poll,
    );
    return { happened: "db-0 recovers, and takes writes again", lost: await lost() };
  });

  fault("db-0's volume is lost, and pod db-1 is deleted at that moment", async () => {
    const node = await loseVolume("db-1");
    await saysIn("db-0", "kubectl --namespace my-app exec db-1 -- postgres-entry promote");
    assert.equal(await inVolume(node, "ls"), "lock", "no database was made");
    const { exitCode, all } = await checkout.lab("verify", stack);
    assert.notEqual(exitCode, 0, all);
    await entry("db-1", "promote");
    await checkout.edit(file, "{replicas: 2, size", "{replicas: 2, primary: 1, size");
    await up();
    await write("after a promotion");
    return { happened: "db-0 waits, db-1 is promoted by hand, db-0 copies it", lost: await lost() };
  });

  fault("db-1 is the primary, and the file asks for db-0 only", async () => {
    await checkout.edit(file, "{replicas: 2, primary: 1, size", "{replicas: 1, size");
    const { exitCode, all } = await checkout.lab("up", stack);
    assert.equal(exitCode, 2, all);
    assert.match(all, /db-0 replicates db-1, which takes writes/);
    await kubectl("scale", "statefulset", "db", "--replicas=1");
    await kubectl("wait", "--for=delete", "pod/db-1", "--timeout=90s");
    await entry("db-0", "promote");
    await up();
    await write("by one alone");
    return { happened: "exit 2, nothing changes; db-0 is promoted first", lost: await lost() };
  });

  fault("the only pod's volume is lost", async () => {
    await succeeded(await checkout.lab("backup", stack, "book.dump"));
    const node = await loseVolume();
    await saysIn("db-0", "kubectl --namespace my-app exec db-0 -- postgres-entry initialise");
    assert.equal(await inVolume(node, "ls"), "lock", "no database was made");
    await pWaitFor(
      async () => (await checkout.lab("verify", stack)).all.includes("this volume is empty"),
      poll,
    );
    await entry("db-0", "initialise");
    await kubectl("rollout", "status", "statefulset/db", "--timeout=120s");
    await succeeded(await checkout.lab("restore", stack, "book.dump"));
    return {
      happened: "db-0 waits; a new database by hand, then the backup is restored",
      lost: await lost(),
    };
  });

  fault("`lab down` is interrupted once the StatefulSet is gone", async () => {
    const target = ["--target", "**kubernetes:apps/v1:StatefulSet**", "--target-dependents"];
    await succeeded(await checkout.pulumi("destroy", stack, ...target));
    for (const stacks of [[stack], ["k3d"]]) {
      const { exitCode, all } = await checkout.lab("down", ...stacks);
      assert.equal(exitCode, 3, all);
      assert.match(all, /removed \(stack my-app-k3d\): the volume my-app\/data-db-0 \(1Gi\)/);
      assert.match(all, /data-db-1 \(1Gi\)/, "of a pod that is not asked for any more");
      assert.doesNotMatch(all, /did not create/);
    }
    await up();
    return { happened: "exit 3 names every volume; `lab up` continues with the data", lost: await lost() };
  });

  fault("the cluster is lost and replaced by a new one", async () => {
    const uid = () => kubectl("get", "namespace", "kube-system", "--output=jsonpath={.metadata.uid}");
    const before = await uid();
    await succeeded(await checkout.lab("down", "k3d", stack, "--replace"));
    await succeeded(await checkout.lab("up", "k3d", stack));
    assert.notEqual(await uid(), before);
    assert.deepEqual(JSON.parse(await curl()).entries, [], "a new cluster has a new database");
    await succeeded(await checkout.lab("restore", stack, "book.dump"));
    return { happened: "the backup is restored into it", lost: await lost() };
  });
});
