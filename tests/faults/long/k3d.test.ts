import assert from "node:assert/strict";
import { once } from "node:events";
import { chmod, readFile, rm, stat, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { join } from "node:path";
import { after, before, describe } from "node:test";
import pWaitFor from "p-wait-for";
import { isAlive } from "../../../stacks/lib/processes.ts";
import { type Checkout, copyCheckout, type Outcome } from "../../e2e/checkout.ts";
import { followerOf, haveSameRevision, wayBack } from "../../e2e/etcd.ts";
import { ask } from "../../e2e/host.ts";
import { appsAnswer, devHosts, inDocker, ingress, kubectlOf, moveToAgent } from "../../e2e/k3d.ts";
import { lossesOf, startLoad } from "../../load.ts";
import { steps } from "../../steps.ts";

// A cluster of three servers and an agent, made by the command that a person types, and what may happen to it. Each
// test finds it whole and leaves it whole; what must survive all of them is a ConfigMap and the cluster's own UID. Then one of
// a server and an agent with apps, beside a lab of machines.

let checkout: Checkout;
let uid: string;

const succeeded = (outcome: Outcome): Promise<Outcome> => checkout.succeeded(outcome);
const docker = (...args: string[]): Promise<string> => checkout.output("docker", ...args);
const kubectl = (...args: string[]): Promise<string> =>
  checkout.output("kubectl", "--context", "k3s-lab-k3d-ha", ...args);
const up = async (...args: string[]): Promise<Outcome> =>
  succeeded(await checkout.lab("up", "k3d-ha", ...args));
const preview = async (stack = "k3d-ha"): Promise<string> =>
  (await succeeded(await checkout.pulumi("preview", stack))).all;
const askUid = () => kubectl("get", "namespace", "kube-system", "--output=jsonpath={.metadata.uid}");
const ids = async (...but: string[]): Promise<string[]> =>
  (
    await docker(
      "ps",
      "--all",
      "--no-trunc",
      "--format",
      "{{.Names}} {{.ID}}",
      "--filter",
      "label=k3d.cluster=k3d-ha",
    )
  )
    .split("\n")
    .filter((line) => !but.some((name) => line.startsWith(`${name} `)))
    .sort();

/** What of the cluster is lost. @param before the containers that must still be the same ones. */
async function lost(before: readonly string[]): Promise<string> {
  const now = await ids();
  const gone = before.filter((one) => !now.includes(one));
  if (gone.length) return gone.join(", ");
  if ((await askUid()) !== uid) return "the cluster: another has its place";
  const kept = await kubectl("get", "configmap", "keep", "--output=jsonpath={.data.a}");
  return kept === "b" ? "nothing" : "the ConfigMap";
}

const ready = async (): Promise<void> => {
  await kubectl("wait", "--for=condition=Ready", "--timeout=120s", "node", "--all");
  assert.equal((await kubectl("get", "nodes", "--no-headers")).split("\n").length, 4);
};

/** Removes a container by hand, looks at what a preview says, and brings the cluster up again. */
async function repaired(name: string, planned: RegExp): Promise<{ happened: string; lost: string }> {
  const before = await ids(name);
  await docker("rm", "--force", "--volumes", name);
  const plan = await preview();
  assert.match(plan, planned);
  await up();
  await ready();
  assert.match(await preview(), /\d+ unchanged\n*$/);
  return { happened: "only that server is recreated; it joined the others", lost: await lost(before) };
}

describe("a k3d cluster of three servers and its faults", { concurrency: false }, () => {
  const { test, fault } = steps();
  before(async () => {
    checkout = await copyCheckout();
    await checkout.edit("stacks/k3d-ha.yaml", "agents: 0", "agents: 1");
    await checkout.edit(
      "stacks/k3d-ha.yaml",
      "options:",
      'registries: {create: {name: k3d-registry.localhost, host: 127.0.0.1, hostPort: "5050"}}\noptions:',
    );
    await checkout.edit(
      "stacks/k3d-ha.yaml",
      "options:",
      'options:\n  k3s: {extraArgs: [{arg: --secrets-encryption, nodeFilters: ["server:*"]}]}',
    );
    await up();
    await kubectl("create", "configmap", "keep", "--from-literal=a=b");
    uid = await askUid();
  });
  after(async () => {
    await checkout.lab("down", "k3d-ha", "k3d");
    await checkout.remove();
  });

  test("its three servers store the cluster in etcd", async () => {
    const roles = await kubectl("get", "nodes", "--show-labels", "--no-headers");
    assert.equal(roles.match(/node-role\.kubernetes\.io\/etcd=true/g)?.length, 3, roles);
  });

  test("each server's copy of etcd holds Secrets encrypted", async () => {
    const { stdout } = await succeeded(await checkout.lab("verify", "k3d-ha", "--json"));
    const found = stdout.match(/server-\d\/secrets",[^}]*"actual":"encrypted"/g);
    assert.equal(found?.length, 3, stdout);
  });

  test("registries.yaml, which may hold passwords, is readable by root only", async () => {
    const mode = ["stat", "-c", "%a", "/etc/rancher/k3s/registries.yaml"];
    assert.equal(await docker("exec", "k3d-k3d-ha-server-0", ...mode), "600");
  });

  fault("C8: one of three servers is gone", () =>
    repaired("k3d-k3d-ha-server-1", /~ .*k3d-ha update|k3d-ha update/),
  );
  fault("C8: the first server, which holds the ports, is gone", () =>
    repaired("k3d-k3d-ha-server-0", /k3d-ha update/),
  );
  fault("an agent is gone", () => repaired("k3d-k3d-ha-agent-0-0", /agent-0-0 replace/));

  fault("H6: the kubeconfig is deleted, or readable by others", async () => {
    const before = await ids();
    const kubeconfig = join(checkout.directory, ".lab/k3d-ha/kubeconfig");
    for (const harm of [() => rm(kubeconfig), () => chmod(kubeconfig, 0o644)]) {
      await harm();
      assert.match(await preview(), /kubeconfig-file update/);
      await up();
      assert.match(await preview(), /\d+ unchanged\n*$/);
      assert.equal((await stat(kubeconfig)).mode & 0o777, 0o600);
    }
    return { happened: "the preview shows it; `lab up` writes it again", lost: await lost(before) };
  });

  fault("the registry's container is gone: the pushed images are not", async () => {
    const registry = "k3d-registry.localhost";
    const image = await docker("inspect", "--format", "{{.Config.Image}}", registry);
    await docker("tag", image, "127.0.0.1:5050/pushed:1");
    await docker("push", "127.0.0.1:5050/pushed:1");
    await docker("image", "rm", "127.0.0.1:5050/pushed:1");
    const before = await ids();
    await docker("rm", "--force", registry);
    assert.match(await preview(), /registry update/);
    await up();
    await kubectl("run", "pushed", "--image=k3d-registry.localhost:5050/pushed:1");
    await kubectl("wait", "--for=condition=Ready", "--timeout=60s", "pod/pushed");
    await kubectl("delete", "pod", "pushed", "--force");
    return { happened: "recreated with its images; a pod runs from one", lost: await lost(before) };
  });

  fault("C3: a server paused, another and the agent stopped", async () => {
    const before = await ids();
    await docker("pause", "k3d-k3d-ha-server-1");
    await docker("stop", "--time", "1", "k3d-k3d-ha-agent-0-0");
    assert.doesNotMatch(await preview(), /replace|delete/);
    await up();
    await ready();
    return { happened: "unpaused and started in place", lost: await lost(before) };
  });

  fault("C10: a port of the running cluster is changed to one in use", async () => {
    const before = await ids();
    const other = createServer();
    await once(other.listen(8092, "127.0.0.1"), "listening");
    await checkout.edit("stacks/k3d-ha.yaml", "127.0.0.1:8082:80", "127.0.0.1:8092:80");
    const { exitCode, all } = await checkout.lab("up", "k3d-ha", "--replace");
    other.close();
    assert.equal(exitCode, 2, all);
    assert.match(all, /cannot have port 8092 of 127\.0\.0\.1 .*another program listens on it/);
    const asked = await checkout.lab("up", "k3d-ha");
    assert.equal(asked.exitCode, 3, asked.all);
    await checkout.edit("stacks/k3d-ha.yaml", "127.0.0.1:8092:80", "127.0.0.1:8082:80");
    return { happened: "exit 2; with a free port exit 3", lost: await lost(before) };
  });

  fault("Docker is restarted", async () => {
    const before = await ids();
    const pid = Number(await readFile("/run/k3s-lab/docker.pid", "utf8").catch(() => "0"));
    if (pid) {
      process.kill(pid, "SIGTERM");
      await pWaitFor(async () => !(await isAlive(pid)), { interval: 50, timeout: 60_000 });
      // The lab's own daemon leaves containers running.
      await up();
    }
    await docker("restart", ...before.map((line) => line.split(" ")[0] ?? ""));
    await up();
    await ready();
    return { happened: "the same containers run again", lost: await lost(before) };
  });

  fault("a user's cluster of the same name", async () => {
    const before = await ids();
    const image = await docker("inspect", "--format", "{{.Config.Image}}", "k3d-k3d-ha-server-0");
    const config = join(checkout.directory, "by-hand.yaml");
    await writeFile(
      config,
      `apiVersion: k3d.io/v1alpha5\nkind: Simple\nmetadata: {name: k3d}\nimage: ${image}\noptions: {k3d: {disableLoadbalancer: true}}\n`,
    );
    await succeeded(
      await checkout.run(
        ...(["k3d", "cluster", "create", "--config", config, "--api-port", "127.0.0.1:6552"] as const),
        "--kubeconfig-update-default=false",
      ),
    );
    const id = await docker("inspect", "--format", "{{.Id}}", "k3d-k3d-server-0");
    const { exitCode, all } = await checkout.lab("up", "k3d");
    assert.equal(exitCode, 2, all);
    assert.match(all, /A cluster k3d already exists, created by somebody else/);
    await checkout.lab("down", "k3d");
    assert.equal(
      await docker("inspect", "--format", "{{.Id}} {{.State.Status}}", "k3d-k3d-server-0"),
      `${id} running`,
    );
    assert.match(await docker("network", "ls", "--format", "{{.Name}}"), /^k3d-k3d$/m);
    await succeeded(await checkout.run("k3d", "cluster", "delete", "k3d"));
    return { happened: "exit 2; lab down leaves it", lost: await lost(before) };
  });

  const servers = [0, 1, 2].map((index) => `k3d-k3d-ha-server-${index}`);
  const exec = (name: string, ...command: string[]) => docker("exec", name, ...command);
  // What a follower has written last it knows to be agreed on by its memory alone: killed, it keeps that in its database
  // and not in its log.
  for (const what of ["the first is left", "a follower is left, and loses its memory"])
    fault(`C8: two of three servers are gone: ${what}`, async () => {
      const isKilled = /memory/.test(what);
      const left = isKilled ? await followerOf(exec, servers.slice(1)) : (servers[0] ?? "");
      const gone = servers.filter((name) => name !== left);
      await docker("rm", "--force", "--volumes", ...gone);
      if (isKilled) await docker("kill", left);
      const before = await ids();
      const { exitCode, all } = await checkout.lab("up", "k3d-ha");
      assert.equal(exitCode, 1, all);
      assert.match(
        all,
        new RegExp(`has lost ${gone.join(" and ")} of its 3 servers.*docs/troubleshooting\\.md`),
      );
      assert.deepEqual(await ids(), before);
      const commands = (await wayBack(checkout, "k3d")).replace("k3d-k3d-ha-server-0", left);
      await succeeded(await checkout.run("timeout", "300", "bash", "-euxc", commands));
      await ready();
      await haveSameRevision(exec, servers);
      await succeeded(await checkout.lab("verify", "k3d-ha"));
      assert.match(await preview(), /\d+ unchanged\n*$/);
      return {
        happened: "exit 1; after the documented recovery all three run again, with the same revision",
        lost: await lost(before),
      };
    });

  fault("H11: another metadata.name for a running cluster: confirmed, and it succeeds", async () => {
    await succeeded(await checkout.lab("up", "k3d"));
    await checkout.edit("stacks/k3d.yaml", "metadata: {name: k3d}", "metadata: {name: other}");
    const old = await docker("inspect", "--format", "{{.Id}} {{.State.Status}}", "k3d-k3d-server-0");
    const asked = await checkout.lab("up", "k3d");
    assert.equal(asked.exitCode, 3, asked.all);
    assert.match(asked.all, /replaced \(stack k3d\): the k3d cluster k3d/);
    assert.equal(await docker("inspect", "--format", "{{.Id}} {{.State.Status}}", "k3d-k3d-server-0"), old);
    await succeeded(await checkout.lab("up", "k3d", "--replace"));
    const names = await docker(
      "ps",
      "--all",
      "--format",
      "{{.Names}}",
      "--filter",
      "label=k3s-lab.stack=k3d",
    );
    assert.equal(names, "k3d-other-server-0");
    assert.doesNotMatch(await docker("network", "ls", "--format", "{{.Name}}"), /^k3d-k3d$/m);
    return { happened: "exit 3; with --replace the new one takes its place", lost: "nothing" };
  });

  test("`pulumi destroy` leaves only the other cluster in Docker", async () => {
    await succeeded(await checkout.pulumi("destroy", "k3d-ha"));
    const left = await inDocker(checkout);
    assert.deepEqual(
      left.filter((line) => /k3d-ha|k3d-registry/.test(line)),
      [],
    );
    assert.ok(left.includes("container k3d-other-server-0"), left.join("\n"));
  });
});

describe("a k3d cluster of a server and an agent, its apps, and a lab of machines", {
  concurrency: false,
}, () => {
  const { test, fault } = steps();
  const server = "k3d-k3d-server-0";
  const agent = "k3d-k3d-agent-0-0";
  const upAll = async (...more: string[]) => succeeded(await checkout.lab("up", "k3d", "apps-k3d", ...more));
  const kubectlHere = (...args: string[]) => kubectlOf(checkout, "k3d")(...args);
  before(async () => {
    checkout = await copyCheckout();
    await checkout.edit("stacks/k3d.yaml", "agents: 0", "agents: 1");
    await upAll();
  });
  after(async () => {
    await checkout.lab("down", "cluster", "apps", "k3d", "apps-k3d");
    await checkout.remove();
  });

  fault("an agent with the only pods of apps and the Ingress controller is recreated", async () => {
    const was = await docker("inspect", "--format", "{{.Id}}", agent);
    await moveToAgent(checkout);
    const withVariable = 'env: [{envVar: "A=1", nodeFilters: ["agent:*"]}]\noptions:';
    await checkout.edit("stacks/k3d.yaml", "options:", withVariable);
    const load = startLoad({ addresses: [ingress], hosts: devHosts, rate: 100 });
    const changed = await checkout.lab("up", "k3d", "apps-k3d", "--replace");
    const result = await load.stop(1000);
    await succeeded(changed);
    assert.notEqual(await docker("inspect", "--format", "{{.Id}}", agent), was);
    const nodes = await kubectlHere("get", "nodes", "--output=name");
    assert.deepEqual(nodes.split("\n").sort(), [`node/${agent}`, `node/${server}`]);
    return {
      happened: `requests lost: ${result.lost} of ${result.total}`,
      lost: lossesOf(result) || "nothing",
    };
  });

  test("after a Docker restart `lab up` starts the cluster again, with its addresses and names", async () => {
    const addresses = () =>
      kubectlHere("get", "nodes", "--output=jsonpath={.items[*].status.addresses[*].address}");
    const addressesBefore = (await addresses()).split(" ").sort();
    const pid = Number(await readFile("/run/k3s-lab/docker.pid", "utf8").catch(() => "0"));
    // The lab's own daemon leaves containers running: nothing is to be done then.
    if (pid) {
      process.kill(pid, "SIGTERM");
      await pWaitFor(async () => !(await isAlive(pid)), { interval: 50, timeout: 60_000 });
      assert.match((await upAll()).all, /Stack k3d: no change/);
    }
    await docker("restart", server, agent);
    assert.match((await upAll()).all, /Stack k3d: 2 update/);
    await appsAnswer();
    assert.deepEqual((await addresses()).split(" ").sort(), addressesBefore);
    const look =
      'require("dns").promises.lookup("host.k3d.internal").then(({address}) => console.log(address))';
    const pod = ["--namespace", "dev", "exec", "deployment/app1", "--", "node", "--eval", look];
    const gateway = ["--format", "{{(index .IPAM.Config 0).Gateway}}", "k3d-k3d"];
    assert.equal(await kubectlHere(...pod), await docker("network", "inspect", ...gateway));
  });

  test("a cluster deleted behind Pulumi's back is noticed; one command restores it and the machines' lab", async () => {
    await succeeded(await checkout.run("k3d", "cluster", "delete", "k3d"));
    assert.match(await preview("k3d"), /k3d replace/);
    const stacks = ["cluster", "apps", "k3d", "apps-k3d"];
    await succeeded(await checkout.lab("up", ...stacks));
    await appsAnswer();
    assert.equal((await ask("192.168.42.110", "app1.com")).app, "app1");
    await succeeded(await checkout.lab("verify", ...stacks));
  });

  test("one lab is taken down without the other", async () => {
    await succeeded(await checkout.lab("down", "cluster", "apps"));
    await appsAnswer();
  });
});
