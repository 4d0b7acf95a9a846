import assert from "node:assert/strict";
import { access, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before } from "node:test";
import { execa } from "execa";
import { findGo } from "../../scripts/toolchain/go-module.ts";
import { tools } from "../../scripts/toolchain/tools.ts";
import { managedTraefik } from "../../stacks/model/config.ts";
import { type Checkout, copyCheckout, type Outcome } from "../e2e/checkout.ts";
import { ask } from "../e2e/host.ts";
import { steps, suite } from "../steps.ts";
import { startUpstreamNode, type UpstreamNode } from "./upstream/node.ts";

// A cluster that is not K3s and that no stack made: upstream Kubernetes, made by kubeadm. It has no Ingress controller
// and nobody who gives load balancers an address. The tests build on each other.

let node: UpstreamNode;
let checkout: Checkout;
/** What the cluster held before the apps came. */
let heldBefore: string;

const stack = "apps-upstream";

/** Writes the stack file; what is given takes the place of what works. */
async function writeStackFile(given: {
  readonly kubeconfig?: string;
  readonly context?: string;
  readonly ingress?: string;
  readonly isolated?: boolean;
}): Promise<void> {
  const { kubeconfig, context, ingress, isolated } = {
    kubeconfig: node.kubeconfig,
    context: node.context,
    ingress: "managed",
    // The node's network knows no NetworkPolicies.
    isolated: false,
    ...given,
  };
  await writeFile(
    join(checkout.directory, `Pulumi.${stack}.yaml`),
    `config:
  k3s-lab:cluster: {kubeconfig: ${kubeconfig}, context: ${context}}
  k3s-lab:ingress: ${ingress}
  k3s-lab:namespaces:
    - {name: dev, isolated: ${isolated}, quota: {pods: 10, cpu: "1", memory: 1Gi}}
    - {name: other, isolated: ${isolated}}
  k3s-lab:apps:
    - {name: app1, namespace: dev, host: app1.test, replicas: 1}
    - {name: app2, namespace: dev, host: app2.test, replicas: 3}
    - {name: app3, namespace: other, replicas: 1}
`,
  );
}

async function succeeded(outcome: Outcome): Promise<Outcome> {
  if (outcome.exitCode === 0) return outcome;
  const said = outcome.all.split("\n").slice(-60).join("\n");
  return assert.fail(
    `${outcome.command} ended with ${outcome.exitCode} after ${outcome.seconds} s:\n${said}\n\n${await node.evidence()}`,
  );
}

/** Names of everything that the apps program makes anywhere, whoever made it here. */
const held = (): Promise<string> =>
  node.kubectl(
    "get",
    "namespaces,deployments,services,ingresses,ingressclasses,clusterroles,clusterrolebindings,serviceaccounts,resourcequotas,limitranges,networkpolicies",
    "--all-namespaces",
    "--output=name",
  );

/** From an empty cache Kubernetes is built first. */
const building = { timeout: 2 * 3_600_000 };
const go = await findGo();
const skip = "missing" in go ? `upstream Kubernetes is built here, and ${go.missing}` : false;

suite("apps on upstream Kubernetes", { concurrency: false, skip }, () => {
  const { test } = steps();
  before(async () => {
    node = await startUpstreamNode(console.log);
    checkout = await copyCheckout({ besideLabs: true });
    heldBefore = await held();
  }, building);
  after(async () => {
    await checkout?.remove();
    await node?.remove();
  });

  test("the cluster is upstream Kubernetes without an Ingress controller", async () => {
    const { version } = tools.kubernetes;
    const { serverVersion } = JSON.parse(await node.kubectl("version", "--output=json")) as {
      serverVersion: { gitVersion: string };
    };
    assert.equal(serverVersion.gitVersion, version);
    const kubelets = "--output=jsonpath={.items[*].status.nodeInfo.kubeletVersion}";
    assert.equal(await node.kubectl("get", "nodes", kubelets), version);
    assert.equal(await node.kubectl("get", "ingressclasses", "--output=name"), "");
  });

  test("missing features of the cluster are reported before anything is created", async () => {
    const elsewhere = `${node.kubeconfig}-elsewhere`;
    const text = await readFile(node.kubeconfig, "utf8");
    await writeFile(elsewhere, text.replace(/(server: https:\/\/[^:]+):\d+/, "$1:1"), { mode: 0o600 });
    const faults = [
      [{ context: "kind-lab" }, /kind-lab/],
      [{ kubeconfig: `${node.kubeconfig}-none` }, /-none does not exist/],
      [{ kubeconfig: elsewhere }, /cannot be used: .*connection refused/],
      [{ ingress: "traefik" }, /has no IngressClass "traefik"; it has none/],
    ] as const;
    for (const [given, message] of faults) {
      await writeStackFile(given);
      const { exitCode, all, seconds } = await checkout.lab("up", stack);
      assert.equal(exitCode, 2, all);
      assert.match(all, message);
      assert.equal(all.trim().split("\n").length, 1, `more than one line:\n${all}`);
      assert.ok(seconds < 20, `it took ${seconds} s`);
    }
    // The checkout has its id and its passphrase by now, and nothing of a stack.
    for (const file of ["host.json", "inventory.json", `state/.pulumi/stacks/k3s-lab/${stack}.json`])
      await assert.rejects(access(join(checkout.directory, ".lab", file)), { code: "ENOENT" });
    assert.equal(await held(), heldBefore);
  });

  test("`lab up` deploys the apps and the lab's own Traefik", async () => {
    await writeStackFile({});
    const { stdout: ref } = await succeeded(await checkout.lab("image"));
    const { stdout: archive } = await execa("scripts/lab", ["image", ref], {
      cwd: checkout.directory,
      encoding: "buffer",
      maxBuffer: 1 << 30,
    });
    await node.importImages(archive);
    await succeeded(await checkout.lab("up", stack));
  });

  test("`lab verify` passes", async () => {
    const { all } = await succeeded(await checkout.lab("verify", stack));
    assert.match(all, /app2\.test through /);
  });

  test("the apps answer by host name through Traefik's node port", async () => {
    const port = await node.kubectl(
      ...["get", "service", "traefik", `--namespace=${managedTraefik.namespace}`],
      '--output=jsonpath={.spec.ports[?(@.name=="web")].nodePort}',
    );
    const address = `${node.address}:${port}`;
    assert.equal((await ask(address, "app1.test")).app, "app1");
    assert.equal((await ask(address, "any.other")).app, "app3");
    const pods = new Set<string>();
    for (let request = 0; request < 60 && pods.size < 3; request += 1) {
      const { app, pod, namespace } = await ask(address, "app2.test");
      assert.deepEqual([app, namespace], ["app2", "dev"]);
      pods.add(pod);
    }
    assert.equal(pods.size, 3, `app2 answered from ${[...pods]}`);
  });

  test("a second `lab up` changes nothing", async () => {
    const { all } = await succeeded(await checkout.lab("up", stack));
    assert.match(all, /Stack apps-upstream: no change/);
  });

  test("a network without NetworkPolicy support fails verification by name", async () => {
    await writeStackFile({ isolated: true });
    await succeeded(await checkout.pulumi("up", stack));
    const { exitCode, all } = await checkout.lab("verify", stack);
    assert.equal(exitCode, 1, all);
    assert.match(all, /FAIL .*other: closed to pods of dev: .* answers/);
    assert.match(all, /network ignores policies, set `isolated: false`/);
    await writeStackFile({});
  });

  test("`lab down` leaves the cluster running as it was", async () => {
    await succeeded(await checkout.lab("down", stack));
    assert.equal(await held(), heldBefore);
  });

  test("foreign objects are conflicts and stay unchanged", async () => {
    const users = ["namespaces", "deployments", "services"];
    const uids = () =>
      node.kubectl(
        ...["get", users.join(","), "--all-namespaces"],
        "--output=jsonpath={range .items[*]}{.kind} {.metadata.name} {.metadata.uid} {.metadata.labels}{'\\n'}{end}",
      );
    await node.kubectl("create", "namespace", "dev");
    await node.kubectl("create", "service", "clusterip", "app1", "--namespace=dev", "--tcp=80");
    const before = await uids();
    const { exitCode, all } = await checkout.lab("up", stack);
    assert.equal(exitCode, 2, all);
    assert.match(all, /already has Namespace dev, Service dev\/app1, which the lab did not create/);
    await succeeded(await checkout.lab("down", stack));
    assert.equal(await uids(), before);
    await node.kubectl("delete", "namespace", "dev");
  });

  test("a stopped cluster's state is kept; only a person can say that it is gone for good", async () => {
    await succeeded(await checkout.lab("up", stack));
    await node.stop();
    const { exitCode, all } = await checkout.lab("up", stack);
    assert.equal(exitCode, 2, all);
    assert.match(all, /The cluster "kubernetes-admin@upstream" cannot be used/);
    const down = await checkout.lab("down", stack);
    assert.equal(down.exitCode, 1, down.all);
    assert.match(down.all, /does not answer, so the apps of the stack "apps-upstream" stay/);
    process.env.PULUMI_K8S_DELETE_UNREACHABLE = "true";
    try {
      await succeeded(await checkout.lab("down", stack));
    } finally {
      delete process.env.PULUMI_K8S_DELETE_UNREACHABLE;
    }
  });
});
