import assert from "node:assert/strict";
import { readdir, readFile, stat } from "node:fs/promises";
import { join } from "node:path";
import { after, before, describe } from "node:test";
import { steps } from "../steps.ts";
import { type Checkout, copyCheckout, type Outcome } from "./checkout.ts";
import { ask, hostState, newOnHost } from "./host.ts";
import { killedAt } from "./killed.ts";

// One lab from nothing to nothing, by the commands that a person types. The tests build on each other.

let checkout: Checkout;
/** What was on this computer before the lab: nothing of the lab's may be left in the end. */
let hostBefore: ReadonlySet<string>;

const succeeded = (outcome: Outcome): Promise<Outcome> => checkout.succeeded(outcome);

const onServer = (command: string): Promise<string> =>
  checkout.output("vagrant", "ssh", "server", "--command", command);
const server = "192.168.42.110";
const agent = "192.168.42.111";

describe("a lab, from nothing to nothing", { concurrency: false }, () => {
  const { test } = steps();
  before(async () => {
    checkout = await copyCheckout();
    hostBefore = await hostState(checkout.directory);
    await checkout.edit("Pulumi.cluster.yaml", "-mode=644]", "-mode=644, --secrets-encryption]");
    await checkout.edit("Pulumi.cluster.yaml", "memory: 2048}", "memory: 2048, labels: [disk=ssd]}");
  });
  after(async () => {
    await checkout.lab("down");
    await checkout.remove();
  });

  test("a bad stack file is refused before anything changes", async () => {
    await checkout.edit("Pulumi.cluster.yaml", "ip: 192.168.42.111", "ip: 192.168.42.110");
    const { exitCode, all } = await checkout.lab("up");
    assert.equal(exitCode, 2, all);
    assert.match(
      all,
      /Pulumi\.cluster\.yaml: k3s-lab:machines\[1\]\.ip: "192\.168\.42\.110" is not accepted/,
    );
    await assert.rejects(stat(join(checkout.directory, ".lab")), { code: "ENOENT" });
    await checkout.edit(
      "Pulumi.cluster.yaml",
      "- {name: agent, role: agent, ip: 192.168.42.110",
      "- {name: agent, role: agent, ip: 192.168.42.111",
    );
  });

  test("Ctrl-C in the middle of `lab up` ends it cleanly, and the next run continues", async () => {
    await killedAt(checkout.directory, ["up"], /creating K3sNode server/, "SIGINT");
    await succeeded(await checkout.lab("up"));
  });

  test("`lab up` again does not start Pulumi", async () => {
    const noted = () => readdir(join(checkout.directory, ".lab/state/.pulumi/history"), { recursive: true });
    const before = (await noted()).sort();
    assert.match(before.join("\n"), /cluster-\d+\.history\.json/);
    await succeeded(await checkout.lab("up"));
    assert.deepEqual((await noted()).sort(), before);
  });

  test("the three apps answer by host name, through either node", async () => {
    for (const address of [server, agent]) {
      assert.equal((await ask(address, "app1.com")).app, "app1");
      assert.equal((await ask(address, "app2.com")).app, "app2");
      assert.equal((await ask(address, "anything.else")).app, "app3");
    }
    const pods = new Set<string>();
    for (let request = 0; request < 30 && pods.size < 3; request += 1)
      pods.add((await ask(server, "app2.com")).pod);
    assert.equal(pods.size, 3, `app2 answered from ${[...pods]}`);
  });

  test("`lab verify` passes, also with --json", async () => {
    const { stdout } = await succeeded(await checkout.lab("verify", "--json"));
    const text = JSON.stringify(JSON.parse(stdout));
    assert.match(text, /"ok":true/);
    assert.doesNotMatch(text, /"ok":false/);
    assert.match(text, /"id":"cluster\/server\/secrets",[^}]*"actual":"encrypted"/);
    assert.match(text, /"id":"cluster\/server\/marks",[^}]*"actual":"disk=ssd"/);
  });

  test("the encryption of Secrets cannot be switched off, and nothing changes", async () => {
    await checkout.edit("Pulumi.cluster.yaml", ", --secrets-encryption]", "]");
    const { exitCode, all } = await checkout.lab("up", "cluster");
    assert.equal(exitCode, 2, all);
    assert.match(all, /--secrets-encryption cannot change .*the cluster's Secrets are encrypted/);
    await checkout.edit("Pulumi.cluster.yaml", "-mode=644]", "-mode=644, --secrets-encryption]");
  });

  test("the specs of parts 1 and 2 pass with full points", async () => {
    const graded = ["part1", "part2"].map(async (part) => {
      const spec = `scripts/exercise/specs/${part}.yaml`;
      const { all } = await succeeded(await checkout.lab("verify", "--spec", spec));
      assert.match(all, /^20 of 20 points\./m);
    });
    await Promise.all(graded);
  });

  test("K3s runs with the configured flags", async () => {
    const stdout = await onServer("cat /etc/systemd/system/k3s.service");
    for (const flag of [`--node-ip=${server}`, "--flannel-iface=eth1", "--write-kubeconfig-mode=644"])
      assert.ok(stdout.includes(`'${flag}'`), `${flag} is not in:\n${stdout}`);
  });

  test("secrets are in files of mode 0600, and encrypted in Pulumi's state", async () => {
    const lab = join(checkout.directory, ".lab");
    for (const file of ["passphrase", "cluster/token", "cluster/kubeconfig", "ssh/id_ed25519"])
      assert.equal((await stat(join(lab, file))).mode & 0o777, 0o600, file);
    const token = await readFile(join(lab, "cluster", "token"), "utf8");
    const state = await readFile(join(lab, "state", ".pulumi", "stacks", "k3s-lab", "cluster.json"), "utf8");
    assert.ok(token.length >= 32);
    assert.ok(!state.includes(token), "the token is in Pulumi's state in clear");
    assert.ok(!state.includes("client-key-data"), "the kubeconfig is in Pulumi's state in clear");
    const stdout = await onServer("ps -eo args; sudo journalctl --no-pager");
    assert.ok(!stdout.includes(token), "the token is in a command line or the journal of the server");
  });

  test("a preview of either stack shows no change, and the stack files are unchanged", async () => {
    await Promise.all(
      ["cluster", "apps"].map(async (stack) =>
        succeeded(await checkout.pulumi("preview", stack, "--expect-no-changes")),
      ),
    );
    await succeeded(await checkout.lab("up"));
    assert.doesNotMatch(
      await readFile(join(checkout.directory, "Pulumi.cluster.yaml"), "utf8"),
      /encryptionsalt/,
    );
  });

  test("one more replica by plain `pulumi up --stack apps`", async () => {
    await checkout.edit("Pulumi.apps.yaml", "host: app1.com, replicas: 1", "host: app1.com, replicas: 2");
    const { all } = await succeeded(await checkout.pulumi("up", "apps"));
    assert.match(all, /~ 1 updated/);
    await succeeded(await checkout.lab("verify", "apps", "--wait", "60"));
  });

  test("memory and flags change in place, as the preview shows, also after a checkout update with another machine image", async () => {
    const machines = ["k3s-lab-cluster-server", "k3s-lab-cluster-agent"];
    const inspect = (format: string) => checkout.output("docker", "inspect", "--format", format, ...machines);
    const image = async () =>
      (JSON.parse((await checkout.lab("env", "--json")).stdout) as Record<string, string>).LAB_MACHINE_IMAGE;
    const before = { ids: await inspect("{{.Id}}"), image: await image() };
    await checkout.edit("Pulumi.cluster.yaml", "cpus: 2, memory: 1024", "cpus: 2, memory: 1536");
    await checkout.edit("Pulumi.cluster.yaml", "agentArgs: []", "agentArgs: [--kubelet-arg=max-pods=177]");
    const preview = await succeeded(await checkout.pulumi("preview", "cluster"));
    assert.match(preview.all, /~ 2 to update/);
    assert.doesNotMatch(preview.all, /to (create|delete|replace)/);
    // No machine is created from it, so it needs none of K3s's images, whose unpacking takes most of its time.
    await checkout.edit("vagrant/image/fill.sh", "set -eu\n", "set -eu\nexit\n");
    await succeeded(await checkout.lab("up"));
    const other = await image();
    assert.notEqual(other, before.image);
    assert.equal(await inspect("{{.Id}}"), before.ids, "a machine was rebuilt");
    const [, memory] = (await inspect("{{.HostConfig.Memory}}")).split("\n");
    assert.equal(memory, String(1536 * 1024 * 1024));
    const pods = ["get", "node", "agent", "--output=jsonpath={.status.capacity.pods}"];
    assert.equal(await checkout.output("kubectl", ...pods), "177");
    await checkout.edit("vagrant/image/fill.sh", "set -eu\nexit\n", "set -eu\n");
    await checkout.output("docker", "image", "rm", other ?? "");
  });

  test("another agent joins and leaves again", async () => {
    const line = "    - {name: agent, role: agent, ip: 192.168.42.111, cpus: 2, memory: 1536}\n";
    const more = `${line}    - {name: agent2, role: agent, ip: 192.168.42.112, cpus: 1, memory: 1024}\n`;
    const names = async () =>
      (await checkout.output("kubectl", "get", "nodes", "--output=jsonpath={.items[*].metadata.name}"))
        .split(" ")
        .sort();
    await checkout.edit("Pulumi.cluster.yaml", line, more);
    await succeeded(await checkout.lab("up"));
    assert.deepEqual(await names(), ["agent", "agent2", "server"]);
    assert.equal((await ask("192.168.42.112", "app1.com")).app, "app1");
    await checkout.edit("Pulumi.cluster.yaml", more, line);
    const { exitCode, all } = await checkout.lab("up");
    assert.equal(exitCode, 3, all);
    assert.match(all, /the machine agent2 \(192\.168\.42\.112\)/);
    assert.deepEqual(await names(), ["agent", "agent2", "server"], "refused, and nothing was touched");
    await succeeded(await checkout.lab("up", "--replace"));
    assert.deepEqual(await names(), ["agent", "server"]);
  });

  test("`lab up` repairs what was changed inside the cluster without Pulumi", async () => {
    await checkout.output("kubectl", "delete", "ingress", "app2");
    await succeeded(await checkout.lab("up"));
    assert.equal((await ask(server, "app2.com")).app, "app2");
  });

  test("a machine that was destroyed without Pulumi shows as a replacement and is recreated; a stopped one is started", async () => {
    await checkout.output("docker", "rm", "--force", "--volumes", "k3s-lab-cluster-agent");
    // It does not end by itself within the 10 s of Docker's.
    await checkout.output("docker", "stop", "--time=1", "k3s-lab-cluster-server");
    const serverId = () =>
      checkout.output("docker", "inspect", "--format", "{{.Id}}", "k3s-lab-cluster-server");
    const before = await serverId();
    const { all } = await succeeded(await checkout.pulumi("preview", "cluster"));
    assert.match(all, /command:local:Command agent replace/);
    assert.match(all, /command:local:Command server update/);
    await succeeded(await checkout.lab("up"));
    assert.equal(await serverId(), before, "the server was rebuilt");
    for (const address of [server, agent]) assert.equal((await ask(address, "app2.com")).app, "app2");
  });

  test("`pulumi destroy` works when the cluster is already gone", async () => {
    const machines = ["k3s-lab-cluster-server", "k3s-lab-cluster-agent"];
    await checkout.output("docker", "rm", "--force", "--volumes", ...machines);
    for (const stack of ["apps", "cluster"]) await succeeded(await checkout.pulumi("destroy", stack));
  });

  test("plain Vagrant: `up` creates the machines, `provision` installs K3s, and again on request", async () => {
    await checkout.output("vagrant", "up");
    const asked = await checkout.run("vagrant", "ssh", "server", "--command", "test -e /usr/local/bin/k3s");
    assert.notEqual(asked.exitCode, 0, "`vagrant up` installed K3s");
    await checkout.output("vagrant", "provision");
    await checkout.output("vagrant", "provision", "agent");
    const areReady = async () => {
      const nodes = await onServer("kubectl get nodes --no-headers");
      assert.equal(nodes.match(/ Ready /g)?.length, 2, nodes);
    };
    await areReady();
    // H15: an agent of a name that the cluster knew joins again.
    for (const step of [["destroy", "--force"], ["up"], ["provision"]])
      await checkout.output("vagrant", ...step, "agent");
    await areReady();
    await checkout.output("vagrant", "destroy", "--force");
  });

  test("`lab down` leaves nothing of the lab on the host", async () => {
    await succeeded(await checkout.lab("down"));
    assert.deepEqual(await newOnHost(hostBefore, checkout.directory), []);
  });
});
