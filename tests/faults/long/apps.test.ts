import assert from "node:assert/strict";
import { readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { type Checkout, copyCheckout, type Outcome } from "../../e2e/checkout.ts";
import { lossDuring } from "../../load.ts";
import { fault } from "../table.ts";

// What happens to apps, and to what a user has beside them, on a lab of machines in containers. The faults build on each
// other: each leaves the lab as it found it.

const ctr = ["ctr", "--address", "/run/k3s/containerd/containerd.sock", "--namespace", "k8s.io", "images"];
const addresses = ["192.168.42.110", "192.168.42.111"];
const agent = "k3s-lab-cluster-agent";

/** Requests of each kind, with and without keep-alive, that a change must not lose any of. */
const requests = 10_000;

let checkout: Checkout;
before(
  async () => {
    checkout = await copyCheckout();
    await checkout.succeeded(await checkout.lab("up"));
  },
  { timeout: 300_000 },
);
after(
  async () => {
    await checkout.lab("down");
    await checkout.remove();
  },
  { timeout: 120_000 },
);

const kubectl = async (...args: string[]): Promise<string> =>
  (await checkout.succeeded(await checkout.run("kubectl", ...args))).stdout;

/** Everything that anybody has made in the cluster and that a stack of apps could touch, by UID. */
const uids = (): Promise<string> =>
  kubectl(
    "get",
    "namespaces,deployments,services,ingresses,poddisruptionbudgets,networkpolicies,resourcequotas,configmaps",
    "--all-namespaces",
    "--output=jsonpath={range .items[*]}{.kind} {.metadata.namespace}/{.metadata.name} {.metadata.uid} {.metadata.labels}{'\\n'}{end}",
  );

/** What a fault lost: the objects that are not there any more as they were. */
const lostSince = async (earlier: string): Promise<string> => {
  const now = new Set((await uids()).split("\n"));
  return (
    earlier
      .split("\n")
      .filter((line) => !now.has(line))
      .join("; ") || "nothing"
  );
};

async function withStackFile(stack: string, text: string, run: () => Promise<void>): Promise<void> {
  const file = join(checkout.directory, `Pulumi.${stack}.yaml`);
  await writeFile(file, text);
  try {
    await run();
  } finally {
    await rm(file);
  }
}

const isRefused = ({ exitCode, all }: Outcome, sentence: RegExp): void => {
  assert.equal(exitCode, 2, all);
  assert.match(all, sentence);
};

fault(
  "C6: a namespace and an app of the user's own are in the way, on a cluster of the lab's",
  async () => {
    await kubectl("create", "namespace", "mine");
    await kubectl("create", "configmap", "precious", "--namespace=mine", "--from-literal=a=b");
    await kubectl("create", "deployment", "app9", "--image=none", "--replicas=0");
    const cluster =
      "config:\n  k3s-lab:cluster: {stack: cluster}\n  k3s-lab:apps:\n    - {name: own, host: own.com}\n";
    const before = await uids();
    const inTheWay = [
      [
        `${cluster}    - {name: a, namespace: mine}\n  k3s-lab:namespaces: [{name: mine}]\n`,
        /has Namespace mine already, which is not the lab's/,
      ],
      [
        `${cluster}    - {name: app9, host: app9.com}\n`,
        /has Deployment default\/app9 already, which is not the lab's/,
      ],
    ] as const;
    for (const [text, sentence] of inTheWay) {
      // The stack has an app already, so that `lab down` has something to delete.
      await withStackFile("apps-b", cluster, async () => {
        await checkout.succeeded(await checkout.lab("up", "apps-b"));
      });
      await withStackFile("apps-b", text, async () => {
        isRefused(await checkout.lab("up", "apps-b"), sentence);
        const plain = await checkout.run("pulumi", "up", "--stack", "apps-b", "--yes", "--non-interactive");
        assert.notEqual(plain.exitCode, 0);
        await kubectl("get", "deployment/own");
        await checkout.succeeded(await checkout.lab("down", "apps-b"));
        assert.doesNotMatch(await kubectl("get", "deployments", "--output=name"), /\/own$/m);
      });
    }
    await withStackFile("apps-b", `${cluster}    - {name: kubernetes, host: k.com}\n`, async () => {
      isRefused(await checkout.lab("up", "apps-b"), /kubernetes/);
    });
    const lost = await lostSince(before);
    await kubectl("delete", "namespace/mine", "deployment/app9");
    return { happened: "exit 2 by lab, and refused by plain pulumi", lost };
  },
  { timeout: 300_000 },
);

fault(
  "C13: a second apps stack on one cluster",
  async () => {
    const before = await uids();
    const text = await readFile(join(checkout.directory, "Pulumi.apps.yaml"), "utf8");
    let seconds = 0;
    await withStackFile("apps-b", text, async () => {
      const outcome = await checkout.lab("up", "apps-b");
      seconds = outcome.seconds;
      isRefused(outcome, /already, which is the stack apps's: nothing was touched/);
      const down = await checkout.succeeded(await checkout.lab("down", "apps-b"));
      assert.match(down.all, /Stack apps-b: nothing is up/, "something of the other stack was recorded");
    });
    return { happened: `exit 2 after ${seconds.toFixed(1)} s`, lost: await lostSince(before) };
  },
  { timeout: 120_000 },
);

fault(
  "C7: k3s-lab:namespace changes, and every app names its own",
  async () => {
    const file = join(checkout.directory, "Pulumi.apps.yaml");
    const original = await readFile(file, "utf8");
    await kubectl("create", "namespace", "spare");
    const before = await uids();
    try {
      const explicit = original.replaceAll("{name: app", "{namespace: default, name: app");
      await writeFile(file, explicit.replace("k3s-lab:namespace: default", "k3s-lab:namespace: spare"));
      const { all } = await checkout.succeeded(await checkout.lab("up", "apps"));
      // The provider's default changes; no app does.
      assert.doesNotMatch(all, /✔ Stack apps: .*(create|delete|replace)/);
    } finally {
      await writeFile(file, original);
      await checkout.succeeded(await checkout.lab("up", "apps"));
    }
    const lost = await lostSince(before);
    await kubectl("delete", "namespace", "spare");
    return { happened: "no app is renamed, made or deleted", lost };
  },
  { timeout: 120_000 },
);

fault(
  "H6: the app's image was removed from a node",
  async () => {
    const images = async () =>
      (await checkout.run("docker", "exec", agent, ...ctr, "ls", "-q")).stdout
        .split("\n")
        .filter((line) => line.includes("k3s-lab/web"));
    const before = await images();
    assert.ok(before.length > 0);
    for (const image of before) await checkout.run("docker", "exec", agent, ...ctr, "rm", image);
    assert.deepEqual(await images(), []);
    const preview = await checkout.run("pulumi", "preview", "--stack", "apps", "--diff", "--non-interactive");
    assert.match(preview.all, /web-agent/);
    const { all } = await checkout.succeeded(await checkout.lab("up", "apps"));
    assert.match(all, /Stack apps: 1 update/);
    const lost = (await images()).length > 0 ? "nothing" : "the image";
    const again = await checkout.succeeded(await checkout.lab("up", "apps"));
    assert.match(again.all, /Stack apps: no change/);
    return { happened: "preview shows it, lab up loads it again", lost };
  },
  { timeout: 120_000 },
);

const rolledOut = async (): Promise<void> => {
  for (const app of ["app1", "app2", "app3"])
    await kubectl("rollout", "status", `deployment/${app}`, "--timeout=120s");
};

const changes: readonly (readonly [string, () => Promise<unknown>])[] = [
  [
    "a rollout of all apps",
    async () => {
      const file = join(checkout.directory, "Pulumi.apps.yaml");
      const text = await readFile(file, "utf8");
      await writeFile(file, text.replaceAll("version: 1.0.0", "version: 1.0.1"));
      await checkout.succeeded(await checkout.lab("up", "apps"));
    },
  ],
  [
    "a rollback",
    async () => {
      for (const app of ["app1", "app2", "app3"]) await kubectl("rollout", "undo", `deployment/${app}`);
      await rolledOut();
    },
  ],
  [
    "scaling down and up",
    async () => {
      await kubectl("scale", "deployment/app2", "--replicas=1");
      await rolledOut();
      await kubectl("scale", "deployment/app2", "--replicas=3");
      await rolledOut();
    },
  ],
];
for (const [what, change] of changes)
  fault(
    `H17: ${what} while requests come`,
    async () => {
      return await lossDuring(addresses, requests, change);
    },
    { timeout: 300_000 },
  );

test("the lab is verified after all that", { timeout: 120_000 }, async () => {
  await checkout.succeeded(await checkout.lab("up", "apps"));
});
