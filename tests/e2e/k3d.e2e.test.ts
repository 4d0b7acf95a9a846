import assert from "node:assert/strict";
import { once } from "node:events";
import { readFile, stat, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { join } from "node:path";
import { after, before, describe } from "node:test";
import { lossesOf, startLoad } from "../load.ts";
import { steps } from "../steps.ts";
import { type Checkout, copyCheckout, type Outcome } from "./checkout.ts";
import { exercised } from "./exercises.ts";
import { ask, hostState, newOnHost } from "./host.ts";
import { appsAnswer, devHosts, inDocker, ingress, kubectlOf, moveToAgent } from "./k3d.ts";

// A cluster of k3d from nothing to nothing, by the commands that a person types. The tests build on each other. What takes
// longer, and clusters of three servers, are in tests/faults/long/k3d.test.ts.

let checkout: Checkout;
/** What was on this computer before: nothing may be left in the end. */
let hostBefore: ReadonlySet<string>;

const succeeded = (outcome: Outcome): Promise<Outcome> => checkout.succeeded(outcome);
const nodeNames = async (): Promise<string[]> =>
  (await kubectlOf(checkout, "k3d")("get", "nodes", "--output=jsonpath={.items[*].metadata.name}"))
    .split(" ")
    .sort();
const docker = (...args: string[]): Promise<string> => checkout.output("docker", ...args);
const preview = async (stack: string): Promise<string> =>
  (await succeeded(await checkout.pulumi("preview", stack))).all;

const pick = (json: string) => {
  const { ok, points, of } = JSON.parse(json) as Record<string, unknown>;
  return { ok, points, of };
};

/** The server's container: whatever comes and goes beside it, it must stay the same one. */
const serverId = (): Promise<string> => docker("inspect", "--format", "{{.Id}}", "k3d-k3d-server-0");

describe("a lab on k3d, from nothing to nothing", { concurrency: false }, () => {
  const { test } = steps();
  before(async () => {
    checkout = await copyCheckout();
    hostBefore = await hostState(checkout.directory);
  });
  after(async () => {
    await checkout.lab("down", "k3d", "apps-k3d", "concepts-k3d", "k3d-ha", "--replace");
    await checkout.remove();
  });

  const faults = [
    [
      "an even number of servers",
      "servers: 1 #",
      "servers: 2 #",
      /stacks\/k3d\.yaml: servers: 2 .*odd number/,
    ],
    ["a port on every address", '"127.0.0.1:8081:80"', '"8081:80"', /ports\[0\]\.port: "8081:80" .*loopback/],
    ["a misspelled key", "agents: 0", "agent: 0", /agent: unknown key; did you mean "agents"\?/],
    ["an image without a version", "v1.25.4-k3s1", "latest", /image: "rancher\/k3s:latest" .*version/],
  ] as const;
  for (const [title, from, to, message] of faults)
    test(`${title} is refused before anything changes`, async () => {
      await checkout.edit("stacks/k3d.yaml", from, to);
      const { exitCode, all } = await checkout.lab("up", "k3d", "apps-k3d");
      assert.equal(exitCode, 2, all);
      assert.match(all, message);
      await assert.rejects(stat(join(checkout.directory, ".lab")), { code: "ENOENT" });
      await checkout.edit("stacks/k3d.yaml", to, from);
    });

  test("a port that another program uses is named before anything changes", async () => {
    const other = createServer();
    await once(other.listen(8444, "127.0.0.1"), "listening");
    const { exitCode, all } = await checkout.lab("up", "k3d");
    other.close();
    assert.equal(exitCode, 2, all);
    assert.match(all, /port 8444 of 127\.0\.0\.1 \(ports\[1\]\.port\): another program listens on it/);
  });

  test("`lab up`: one server, six apps in two namespaces, every kind of volume and type of Service, verified", async () => {
    const stacks = ["k3d", "apps-k3d", "concepts-k3d"];
    const concepts = await readFile(join(checkout.directory, "Pulumi.concepts.yaml"), "utf8");
    const file = join(checkout.directory, "Pulumi.concepts-k3d.yaml");
    await writeFile(file, concepts.replace("{stack: cluster}", "{stack: k3d}"));
    await succeeded(await checkout.lab("up", ...stacks));
    await appsAnswer();
    const { stdout } = await succeeded(await checkout.lab("verify", ...stacks, "--json"));
    assert.doesNotMatch(stdout, /"ok": ?false/);
    for (const id of ["apps-k3d/isolation/dev/staging", "concepts-k3d/services/load-balancer"])
      assert.ok(stdout.includes(`"${id}"`), id);
    assert.deepEqual(await nodeNames(), ["k3d-k3d-server-0"]);
  });

  test("everything in Docker has its owner's labels", async () => {
    const id = (await readFile(join(checkout.directory, ".lab/id"), "utf8")).trim();
    const filter = ["--filter", `label=k3s-lab.id=${id}`, "--filter", "label=k3s-lab.stack=k3d"];
    assert.match(await docker("ps", "--format", "{{.Names}}", ...filter), /^k3d-k3d-server-0$/m);
    assert.equal(await docker("network", "ls", "--format", "{{.Name}}", ...filter), "k3d-k3d");
    assert.equal(await docker("volume", "ls", "--format", "{{.Name}}", ...filter), "k3d-k3d-images");
  });

  test("every port is bound to loopback", async () => {
    const ports = await docker("ps", "--format", "{{.Ports}}", "--filter", "label=app=k3d");
    assert.match(ports, /127\.0\.0\.1:8081->80/);
    assert.doesNotMatch(ports, /0\.0\.0\.0|:::|\[::\]/);
  });

  test("the kubeconfig is a file of mode 0600 with its own context, and encrypted in the state", async () => {
    const file = join(checkout.directory, ".lab/k3d/kubeconfig");
    assert.equal((await stat(file)).mode & 0o777, 0o600);
    assert.match(await readFile(file, "utf8"), /current-context: k3s-lab-k3d\n/);
    const state = await readFile(
      join(checkout.directory, ".lab/state/.pulumi/stacks/k3s-lab/k3d.json"),
      "utf8",
    );
    assert.doesNotMatch(state, /client-key-data/);
  });

  test("a preview of each stack shows no change", async () => {
    await Promise.all(
      ["k3d", "apps-k3d", "concepts-k3d"].map(async (stack) =>
        succeeded(await checkout.pulumi("preview", stack, "--expect-no-changes")),
      ),
    );
  });

  test("an app is scaled, rolled out and rolled back under load: no request is lost, and the stack file is updated", async () => {
    const file = join(checkout.directory, "Pulumi.apps-k3d.yaml");
    const text = await readFile(file, "utf8");
    for (const [app, replicas, message] of [
      ["app1", "2", /several apps app1\. Say which: dev\/app1 or staging\/app1/],
      ["dev/app1", "9", /namespaces\[0\]\.quota\.pods: 10 is not accepted/],
    ] as const) {
      const { exitCode, all } = await checkout.lab("scale", app, replicas);
      assert.equal(exitCode, 2, all);
      assert.match(all, message);
      assert.equal(await readFile(file, "utf8"), text);
    }
    const load = startLoad({ addresses: [ingress], hosts: devHosts, rate: 100 });
    const scaled = await checkout.lab("scale", "dev/app1", "2");
    const rolledOut = await checkout.lab("rollout", "dev/app1", "1.1.0", "--watch");
    const { version } = await ask(ingress, devHosts[0]);
    const traced = await checkout.lab("trace", devHosts[0], "--json");
    const rolledBack = await checkout.lab("rollback", "dev/app1", "--json");
    const result = await load.stop(1000);
    for (const outcome of [scaled, rolledOut, traced, rolledBack]) await succeeded(outcome);
    assert.equal(result.lost, 0, `of ${result.total} requests in ${result.seconds} s: ${lossesOf(result)}`);
    assert.equal(version, "1.1.0");
    assert.match(rolledOut.all, /app1-\S+ \(1\.1\.0\) on k3d-k3d-server-0: ready/);
    const { hops } = JSON.parse(traced.stdout) as {
      hops: readonly { hop: string; what: string; node?: string }[];
    };
    const passed = hops.map(({ hop, node }) => (node ? `${hop} on ${node}` : hop));
    const on = (hop: string) => `${hop} on k3d-k3d-server-0`;
    assert.deepEqual(passed, [
      ...[
        "name",
        "host port",
        on("port"),
        on("load balancer"),
        "Service",
        on("Ingress controller"),
        "router",
      ],
      ...["Service", on("endpoint"), on("pod"), "answer"],
    ]);
    assert.match(hops.at(-1)?.what ?? "", /^status 200 from app1 1\.1\.0 in dev, pod app1-/);
    const { key, before, after } = JSON.parse(rolledBack.stdout) as Record<string, unknown>;
    assert.deepEqual([key, before, after], ["k3s-lab:apps[0].version", "1.1.0", "1.0.0"]);
    assert.equal(await readFile(file, "utf8"), text.replace("replicas: 1", "replicas: 2"));
    await succeeded(await checkout.pulumi("preview", "apps-k3d", "--expect-no-changes"));
  });

  test("exercises, in parallel: each is broken, repaired by its solution and removed; the spec of part 3 passes", async () => {
    // The others: tests/faults/long/exercises.test.ts.
    const names = ["wrong-selector", "wrong-port", "closed-network"];
    const graded = (async () => {
      const where = ["--kubeconfig", ".lab/k3d/kubeconfig", "--address", ingress];
      const spec = ["--spec", "scripts/exercise/specs/part3.yaml"];
      const { stdout } = await succeeded(await checkout.lab("verify", ...where, ...spec, "--json"));
      assert.deepEqual(pick(stdout), { ok: true, points: 20, of: 20 });
    })();
    await Promise.all([graded, ...names.map((name) => exercised(checkout, name))]);
    const left = await kubectlOf(checkout, "k3d")("get", "namespaces", "--output=name");
    assert.doesNotMatch(left, /exercise/);
  });

  test("what k3d cannot change in place shows as a replacement", async () => {
    await checkout.edit("stacks/k3d.yaml", "127.0.0.1:8081:80", "127.0.0.1:8091:80");
    assert.match(await preview("k3d"), /k3d replace/);
    await checkout.edit("stacks/k3d.yaml", "127.0.0.1:8091:80", "127.0.0.1:8081:80");
  });

  test("a missing image that cannot be pulled leaves the running cluster unchanged", async () => {
    await checkout.edit("stacks/k3d.yaml", "rancher/k3s:v1.25.4-k3s1", "rancher/no-such-k3s:v1.25.5-k3s1");
    const { exitCode, all } = await checkout.pulumi("up", "k3d");
    assert.notEqual(exitCode, 0, all);
    assert.match(all, /Docker does not have the image rancher\/no-such-k3s:v1\.25\.5-k3s1/);
    await checkout.edit("stacks/k3d.yaml", "rancher/no-such-k3s:v1.25.5-k3s1", "rancher/k3s:v1.25.4-k3s1");
    await appsAnswer();
  });

  test("an agent is added in place, as the preview shows", async () => {
    await checkout.edit("stacks/k3d.yaml", "agents: 0", "agents: 1");
    const planned = await preview("k3d");
    assert.match(planned, /\+ 2 to create/);
    assert.doesNotMatch(planned, /to (update|delete|replace)/);
    const before = await serverId();
    await succeeded(await checkout.lab("up", "k3d", "apps-k3d"));
    assert.deepEqual(await nodeNames(), ["k3d-k3d-agent-0-0", "k3d-k3d-server-0"]);
    assert.equal(await serverId(), before, "the server was rebuilt");
  });

  test("an agent is removed with the only pods of apps and the Ingress controller, and no request is lost", async () => {
    await moveToAgent(checkout);
    await checkout.edit("stacks/k3d.yaml", "agents: 1", "agents: 0");
    const asked = await checkout.lab("up", "k3d", "apps-k3d");
    assert.equal(asked.exitCode, 3, asked.all);
    assert.match(asked.all, /removed \(stack k3d\): the container k3d-k3d-agent-0-0/);
    const before = await serverId();
    const load = startLoad({ addresses: [ingress], hosts: devHosts, rate: 100 });
    const changed = await checkout.lab("up", "k3d", "apps-k3d", "--replace");
    const result = await load.stop(1000);
    await succeeded(changed);
    assert.equal(result.lost, 0, `of ${result.total} requests in ${result.seconds} s: ${lossesOf(result)}`);
    assert.deepEqual(await nodeNames(), ["k3d-k3d-server-0"]);
    assert.equal(await serverId(), before, "the server was rebuilt");
  });

  test("a cluster that was created by hand under a stack's name is refused and stays", async () => {
    const config = join(checkout.directory, "by-hand.yaml");
    await writeFile(
      config,
      "apiVersion: k3d.io/v1alpha5\nkind: Simple\nmetadata: {name: k3d-ha}\nimage: IMAGE\noptions: {k3d: {disableLoadbalancer: true}}\n".replace(
        "IMAGE",
        await docker("inspect", "--format", "{{.Config.Image}}", "k3d-k3d-server-0"),
      ),
    );
    await succeeded(
      await checkout.run(
        ...(["k3d", "cluster", "create", "--config", config, "--wait=false"] as const),
        ...(["--kubeconfig-update-default=false", "--api-port", "127.0.0.1:6552"] as const),
      ),
    );
    const { exitCode, all } = await checkout.lab("up", "k3d-ha");
    assert.equal(exitCode, 2, all);
    assert.match(all, /A cluster k3d-ha already exists, created by somebody else/);
    await succeeded(await checkout.lab("down", "k3d-ha"));
    assert.ok((await inDocker(checkout)).includes("container k3d-k3d-ha-server-0"));
    await succeeded(await checkout.run("k3d", "cluster", "delete", "k3d-ha"));
  });

  test("`lab down` leaves nothing of the lab on the host", async () => {
    await succeeded(await checkout.lab("down", "k3d", "apps-k3d", "concepts-k3d", "--replace"));
    assert.deepEqual(await newOnHost(hostBefore, checkout.directory), []);
  });
});
