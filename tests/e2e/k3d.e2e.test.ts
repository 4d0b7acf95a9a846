import assert from "node:assert/strict";
import { once } from "node:events";
import { readFile, stat, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { join } from "node:path";
import { after, before, describe } from "node:test";
import pWaitFor from "p-wait-for";
import { isAlive } from "../../stacks/lib/processes.ts";
import { startLoad } from "../load.ts";
import { steps } from "../steps.ts";
import { type Checkout, copyCheckout, type Outcome } from "./checkout.ts";
import { ask, hostState, newOnHost } from "./host.ts";

// Clusters of k3d from nothing to nothing, by the commands that a person types. The tests build on each other.

let checkout: Checkout;
/** What was on this computer before: nothing may be left in the end. */
let hostBefore: ReadonlySet<string>;

const succeeded = (outcome: Outcome): Promise<Outcome> => checkout.succeeded(outcome);
const kubectl = (context: string, ...args: string[]): Promise<string> =>
  checkout.output("kubectl", "--context", `k3s-lab-${context}`, ...args);
const nodeNames = async (context: string): Promise<string[]> =>
  (await kubectl(context, "get", "nodes", "--output=jsonpath={.items[*].metadata.name}")).split(" ").sort();
const docker = (...args: string[]): Promise<string> => checkout.output("docker", ...args);
const preview = async (stack: string): Promise<string> =>
  (await succeeded(await checkout.pulumi("preview", stack))).all;

const ingress = "127.0.0.1:8081";

/** Every app of the stack apps-k3d, from outside. */
async function appsAnswer(): Promise<void> {
  for (const [host, app, namespace] of [
    ["app1.dev.localhost", "app1", "dev"],
    ["app2.dev.localhost", "app2", "dev"],
    ["anything.else", "app3", "dev"],
    ["app1.staging.localhost", "app1", "staging"],
    ["app2.staging.localhost", "app2", "staging"],
    ["app3.staging.localhost", "app3", "staging"],
  ] as const) {
    const answer = await ask(ingress, host);
    assert.deepEqual([answer.app, answer.namespace], [app, namespace], host);
  }
}

/** What k3d makes in Docker, of any cluster. */
async function inDocker(): Promise<string[]> {
  const filter = ["--filter", "label=app=k3d"];
  return [
    await docker("ps", "--all", "--format", "container {{.Names}}", ...filter),
    await docker("network", "ls", "--format", "network {{.Name}}", ...filter),
    await docker("volume", "ls", "--format", "volume {{.Name}}"),
  ].flatMap((text) => text.split("\n").filter(Boolean));
}

describe("a lab on k3d, from nothing to nothing", { concurrency: false }, () => {
  const { test } = steps();
  before(async () => {
    checkout = await copyCheckout();
    hostBefore = await hostState(checkout.directory);
  });
  after(async () => {
    await checkout.lab("down", "cluster", "apps", "k3d", "apps-k3d", "k3d-ha");
    await checkout.remove();
  });

  const faults = [
    [
      "an even number of servers",
      "servers: 1 #",
      "servers: 2 #",
      /stacks\/k3d\.yaml: servers: 2 .*odd number/,
    ],
    ["a port for everybody", '"127.0.0.1:8081:80"', '"8081:80"', /ports\[0\]\.port: "8081:80" .*loopback/],
    ["a misspelt key", "agents: 0", "agent: 0", /agent: unknown key; did you mean "agents"\?/],
    ["an image without a version", "v1.25.4-k3s1", "latest", /image: "rancher\/k3s:latest" .*version/],
  ] as const;
  for (const [title, from, to, message] of faults)
    test(`${title} is refused before anything is touched`, async () => {
      await checkout.edit("stacks/k3d.yaml", from, to);
      const { exitCode, all } = await checkout.lab("up", "k3d", "apps-k3d");
      assert.equal(exitCode, 2, all);
      assert.match(all, message);
      await assert.rejects(stat(join(checkout.directory, ".lab")), { code: "ENOENT" });
      await checkout.edit("stacks/k3d.yaml", to, from);
    });

  test("a port that another program has is named before anything is touched", async () => {
    const other = createServer();
    await once(other.listen(8444, "127.0.0.1"), "listening");
    const { exitCode, all } = await checkout.lab("up", "k3d");
    other.close();
    assert.equal(exitCode, 2, all);
    assert.match(all, /port 8444 of 127\.0\.0\.1 \(ports\[1\]\.port\): another program listens there/);
  });

  test("`lab up k3d apps-k3d`: one server, six apps in two namespaces, verified", async () => {
    await succeeded(await checkout.lab("up", "k3d", "apps-k3d"));
    await appsAnswer();
    const { stdout } = await succeeded(await checkout.lab("verify", "k3d", "apps-k3d", "--json"));
    assert.doesNotMatch(stdout, /"ok": ?false/);
    assert.match(stdout, /"apps-k3d\/isolation\/dev\/staging"/);
    assert.deepEqual(await nodeNames("k3d"), ["k3d-k3d-server-0"]);
  });

  test("everything in Docker says whose it is", async () => {
    const id = (await readFile(join(checkout.directory, ".lab/id"), "utf8")).trim();
    const filter = ["--filter", `label=k3s-lab.id=${id}`, "--filter", "label=k3s-lab.stack=k3d"];
    assert.match(await docker("ps", "--format", "{{.Names}}", ...filter), /^k3d-k3d-server-0$/m);
    assert.equal(await docker("network", "ls", "--format", "{{.Name}}", ...filter), "k3d-k3d");
    assert.equal(await docker("volume", "ls", "--format", "{{.Name}}", ...filter), "k3d-k3d-images");
  });

  test("every port is one of loopback", async () => {
    const ports = await docker("ps", "--format", "{{.Ports}}", "--filter", "label=app=k3d");
    assert.match(ports, /127\.0\.0\.1:8081->80/);
    assert.doesNotMatch(ports, /0\.0\.0\.0|:::|\[::\]/);
  });

  test("the kubeconfig is a file of mode 0600 with a context of its own, and encrypted in the state", async () => {
    const file = join(checkout.directory, ".lab/k3d/kubeconfig");
    assert.equal((await stat(file)).mode & 0o777, 0o600);
    assert.match(await readFile(file, "utf8"), /current-context: k3s-lab-k3d\n/);
    const state = await readFile(
      join(checkout.directory, ".lab/state/.pulumi/stacks/k3s-lab/k3d.json"),
      "utf8",
    );
    assert.doesNotMatch(state, /client-key-data/);
  });

  test("a preview of either stack shows no change", async () => {
    for (const stack of ["k3d", "apps-k3d"])
      await succeeded(await checkout.pulumi("preview", stack, "--expect-no-changes"));
  });

  test("agents come and go in place, as the preview says", async () => {
    const id = () => docker("inspect", "--format", "{{.Id}}", "k3d-k3d-server-0");
    const serverBefore = await id();
    await checkout.edit("stacks/k3d.yaml", "agents: 0", "agents: 2");
    const planned = await preview("k3d");
    assert.match(planned, /\+ 4 to create/);
    assert.doesNotMatch(planned, /to (update|delete|replace)/);
    await succeeded(await checkout.lab("up", "k3d", "apps-k3d"));
    assert.deepEqual(await nodeNames("k3d"), ["k3d-k3d-agent-0-0", "k3d-k3d-agent-1-0", "k3d-k3d-server-0"]);
    await checkout.edit("stacks/k3d.yaml", "agents: 2", "agents: 1");
    const asked = await checkout.lab("up", "k3d", "apps-k3d");
    assert.equal(asked.exitCode, 3, asked.all);
    assert.match(asked.all, /removed \(stack k3d\): the container k3d-k3d-agent-1-0/);
    await succeeded(await checkout.lab("up", "k3d", "apps-k3d", "--replace"));
    assert.deepEqual(await nodeNames("k3d"), ["k3d-k3d-agent-0-0", "k3d-k3d-server-0"]);
    assert.equal(await id(), serverBefore, "the server was rebuilt");
  });

  test("an agent that has the only pods of apps and the Ingress controller is made again, and no request is lost", async () => {
    const here = "k3d-k3d-agent-0-0";
    const containerBefore = await docker("inspect", "--format", "{{.Id}}", here);
    await kubectl("k3d", "cordon", "k3d-k3d-server-0");
    for (const [namespace, name] of [
      ["dev", "app1"],
      ["dev", "app2"],
      ["dev", "app3"],
      ["kube-system", "traefik"],
    ] as const)
      for (const action of [["restart"], ["status", "--timeout=120s"]])
        await kubectl("k3d", "rollout", ...action, `deployment/${name}`, "--namespace", namespace);
    await kubectl("k3d", "uncordon", "k3d-k3d-server-0");
    const withVariable = 'env: [{envVar: "A=1", nodeFilters: ["agent:*"]}]\noptions:';
    await checkout.edit("stacks/k3d.yaml", "options:", withVariable);
    const hosts = ["app1.dev.localhost", "app2.dev.localhost", "any.other"];
    const load = startLoad({ addresses: [ingress], hosts, rate: 100 });
    const changed = await checkout.lab("up", "k3d", "apps-k3d", "--replace");
    const { lost, total, reasons } = await load.stop(1000);
    await succeeded(changed);
    assert.notEqual(await docker("inspect", "--format", "{{.Id}}", here), containerBefore);
    assert.deepEqual(reasons, {}, `${lost} of ${total} requests were lost`);
    assert.deepEqual(await nodeNames("k3d"), [here, "k3d-k3d-server-0"]);
  });

  test("what k3d cannot change in place shows as a replacement", async () => {
    await checkout.edit("stacks/k3d.yaml", "127.0.0.1:8081:80", "127.0.0.1:8091:80");
    assert.match(await preview("k3d"), /k3d replace/);
    await checkout.edit("stacks/k3d.yaml", "127.0.0.1:8091:80", "127.0.0.1:8081:80");
  });

  test("an image that is not there and cannot be pulled leaves the running cluster alone", async () => {
    await checkout.edit("stacks/k3d.yaml", "rancher/k3s:v1.25.4-k3s1", "rancher/no-such-k3s:v1.25.5-k3s1");
    const { exitCode, all } = await checkout.pulumi("up", "k3d");
    assert.notEqual(exitCode, 0, all);
    assert.match(all, /Docker does not have the image rancher\/no-such-k3s:v1\.25\.5-k3s1/);
    await checkout.edit("stacks/k3d.yaml", "rancher/no-such-k3s:v1.25.5-k3s1", "rancher/k3s:v1.25.4-k3s1");
    await appsAnswer();
  });

  test("an agent removed behind Pulumi's back is noticed and made again", async () => {
    await docker("rm", "--force", "--volumes", "k3d-k3d-agent-0-0");
    assert.match(await preview("k3d"), /k3d-k3d-agent-0-0 replace/);
    await succeeded(await checkout.lab("up", "k3d", "apps-k3d"));
    assert.deepEqual(await nodeNames("k3d"), ["k3d-k3d-agent-0-0", "k3d-k3d-server-0"]);
  });

  test("after a restart of Docker `lab up` brings the cluster back, with its addresses and names", async () => {
    const addresses = () =>
      kubectl("k3d", "get", "nodes", "--output=jsonpath={.items[*].status.addresses[*].address}");
    const addressesBefore = (await addresses()).split(" ").sort();
    const pid = Number(await readFile("/run/k3s-lab/docker.pid", "utf8").catch(() => "0"));
    // The lab's own daemon leaves containers running: nothing is to be done then.
    if (pid) {
      process.kill(pid, "SIGTERM");
      await pWaitFor(async () => !(await isAlive(pid)), { interval: 50, timeout: 60_000 });
      const { all } = await succeeded(await checkout.lab("up", "k3d", "apps-k3d"));
      assert.match(all, /Stack k3d: no change/);
    }
    await docker("restart", "k3d-k3d-server-0", "k3d-k3d-agent-0-0");
    const { all } = await succeeded(await checkout.lab("up", "k3d", "apps-k3d"));
    assert.match(all, /Stack k3d: 2 update/);
    await appsAnswer();
    assert.deepEqual((await addresses()).split(" ").sort(), addressesBefore);
    const look =
      'require("dns").promises.lookup("host.k3d.internal").then(({address}) => console.log(address))';
    const pod = ["--namespace", "dev", "exec", "deployment/app1", "--", "node", "--eval", look];
    const gateway = await docker(
      "network",
      "inspect",
      "--format",
      "{{(index .IPAM.Config 0).Gateway}}",
      "k3d-k3d",
    );
    assert.equal(await kubectl("k3d", ...pod), gateway);
  });

  test("a cluster deleted behind Pulumi's back is noticed; one command brings it and the machines' lab up", async () => {
    await succeeded(await checkout.run("k3d", "cluster", "delete", "k3d"));
    assert.match(await preview("k3d"), /k3d replace/);
    const stacks = ["cluster", "apps", "k3d", "apps-k3d"];
    await succeeded(await checkout.lab("up", ...stacks));
    await appsAnswer();
    assert.equal((await ask("192.168.42.110", "app1.com")).app, "app1");
    await succeeded(await checkout.lab("verify", ...stacks));
  });

  test("one lab goes without the other", async () => {
    await succeeded(await checkout.lab("down", "cluster", "apps"));
    await appsAnswer();
  });

  test("three servers with etcd and a registry, beside the other cluster", async () => {
    await checkout.edit(
      "stacks/k3d-ha.yaml",
      "options:",
      'registries: {create: {name: k3d-registry.localhost, host: 127.0.0.1, hostPort: "5050"}}\noptions:',
    );
    await succeeded(await checkout.lab("up", "k3d-ha"));
    const roles = await kubectl("k3d-ha", "get", "nodes", "--show-labels", "--no-headers");
    assert.equal(roles.match(/node-role\.kubernetes\.io\/etcd=true/g)?.length, 3, roles);
    // It may hold passwords.
    const registries = [
      "exec",
      "k3d-k3d-ha-server-0",
      "stat",
      "-c",
      "%a",
      "/etc/rancher/k3s/registries.yaml",
    ];
    assert.equal(await docker(...registries), "600");
    const image = (await docker("images", "--format", "{{.Repository}}:{{.Tag}}", "k3s-lab/registry")).split(
      "\n",
    )[0];
    await docker("tag", `${image}`, "127.0.0.1:5050/pushed:1");
    await docker("push", "127.0.0.1:5050/pushed:1");
    await kubectl("k3d-ha", "run", "pushed", "--image=k3d-registry.localhost:5050/pushed:1");
    await kubectl("k3d-ha", "wait", "--for=condition=Ready", "--timeout=60s", "pod/pushed");
    await docker("image", "rm", "127.0.0.1:5050/pushed:1");
    await appsAnswer();
  });

  test("`pulumi destroy` leaves nothing in Docker but what the other cluster has", async () => {
    await succeeded(await checkout.pulumi("destroy", "k3d-ha"));
    assert.deepEqual(
      (await inDocker()).filter((line) => line.includes("k3d-ha")),
      [],
    );
  });

  test("what an interrupted run has left is cleaned up by the next, somebody else's cluster is not", async () => {
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
    assert.notEqual(exitCode, 0);
    assert.match(all, /A cluster k3d-ha is there already, made by somebody else/);
    await succeeded(await checkout.lab("down", "k3d-ha"));
    assert.ok((await inDocker()).includes("container k3d-k3d-ha-server-0"));
    await succeeded(await checkout.run("k3d", "cluster", "delete", "k3d-ha"));
  });

  test("`lab down` leaves nothing of the lab on the host", async () => {
    await succeeded(await checkout.lab("down", "k3d", "apps-k3d"));
    assert.deepEqual(await newOnHost(hostBefore, checkout.directory), []);
  });
});
