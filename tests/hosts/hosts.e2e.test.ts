import assert from "node:assert/strict";
import { rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, describe } from "node:test";
import pWaitFor from "p-wait-for";
import { type Checkout, copyCheckout, type Outcome } from "../e2e/checkout.ts";
import { ask } from "../e2e/host.ts";
import { steps } from "../steps.ts";
import { type Fleet, startFleet } from "./fleet.ts";

// Machines that are there already: three servers and three agents, reached by ssh. The tests build on each other.

let fleet: Fleet;
let checkout: Checkout;
/** What each host held before the lab came. */
let heldBefore: ReadonlySet<string>;

const servers = ["s1", "s2", "s3"];
const agents = ["a1", "a2", "a3"];
const names = [...servers, ...agents];
const stack = "cluster-hosts";
const stacks = [stack, "apps-hosts"];

const succeeded = (outcome: Outcome): Promise<Outcome> => fleet.succeeded(outcome);

/** Writes the stack file; `own` adds to what it says of one machine. */
async function writeStackFile(own: Readonly<Record<string, string>>, agentArgs = "[]"): Promise<void> {
  const machines = names.map((name) =>
    fleet.machine(name, servers.includes(name) ? "server" : "agent", own[name]),
  );
  // Kubernetes gives a node that is lost five minutes before its pods go elsewhere; tests have no such time.
  const patience = ["not-ready", "unreachable"].map(
    (state) => `--kube-apiserver-arg=default-${state}-toleration-seconds=10`,
  );
  const flags = ["--write-kubeconfig-mode=644", ...patience].join(", ");
  await writeFile(
    join(checkout.directory, `Pulumi.${stack}.yaml`),
    fleet.stackFile(machines, `{serverArgs: [${flags}], agentArgs: ${agentArgs}}`),
  );
}

/** The hosts as they are meant: one's key is pinned, one is reached through another, one names its interface. */
const wanted = async () => ({
  a1: `ssh: {hostKey: "${await fleet.hostKey("a1")}"}`,
  a2: `ssh: {jump: "pi@${fleet.address("a3")}"}`,
  s2: "interface: eth0",
});

/** What every host holds: files but for logs, units, firewall chains, network devices; a line each, the host's name before it. */
async function held(): Promise<ReadonlySet<string>> {
  const question = [
    "find / -xdev -path /var/log -prune -o -path /var/lib/systemd -prune -o -path /tmp -prune -o -path /var/tmp -prune -o -print",
    "ls /var/lib/rancher /var/lib/kubelet",
    "systemctl list-unit-files --no-legend 'k3s*'",
    "iptables-save | grep -E '^:(KUBE|CNI|FLANNEL)'",
    "ip -brief link | cut -d ' ' -f 1 | cut -d @ -f 1",
  ].join("; ");
  const all = names.map(async (name) =>
    (await fleet.on(name, "sh", "-c", `${question}; true`)).split("\n").map((line) => `${name}: ${line}`),
  );
  return new Set((await Promise.all(all)).flat());
}

/** What differs from before the lab came. */
async function changedHosts(): Promise<string[]> {
  const now = await held();
  return [
    ...[...now].filter((line) => !heldBefore.has(line)).map((line) => `+ ${line}`),
    ...[...heldBefore].filter((line) => !now.has(line)).map((line) => `- ${line}`),
  ];
}

const kubectl = async (...args: string[]): Promise<string> => {
  const kubeconfig = `${checkout.directory}/.lab/${stack}/kubeconfig`;
  return (await succeeded(await checkout.run("kubectl", "--kubeconfig", kubeconfig, ...args))).stdout;
};
const nodeNames = async (...args: string[]): Promise<string[]> =>
  (await kubectl(...args, "get", "nodes", "--output=jsonpath={.items[*].metadata.name}")).split(" ").sort();

describe("existing machines", { concurrency: false }, () => {
  const { test } = steps();
  before(async () => {
    fleet = await startFleet(names, console.log);
    checkout = await copyCheckout({ besideLabs: true });
    await writeFile(
      join(checkout.directory, "Pulumi.apps-hosts.yaml"),
      [
        "config:",
        `  k3s-lab:cluster: {stack: ${stack}}`,
        "  k3s-lab:apps:",
        "    - {name: app1, host: app1.com}",
        "    - {name: app2, host: app2.com, replicas: 3}",
        "    - {name: app3}",
        "",
      ].join("\n"),
    );
    heldBefore = await held();
  });
  after(async () => {
    await checkout.lab("down", ...stacks);
    await checkout.remove();
    await fleet.remove();
  });

  test("every fault of a host is one clear error, and nothing is installed on any", async () => {
    await fleet.on("a2", "sh", "-c", "echo theirs >/usr/local/bin/k3s");
    await writeStackFile({
      s1: 'ssh: {address: "192.168.45.250"}',
      s2: `ssh: {key: ${checkout.directory}/README.md}`,
      s3: `ssh: {hostKey: "${await fleet.hostKey("a1")}"}`,
      a1: "ssh: {user: guest}",
      a3: "interface: eth9",
    });
    const { exitCode, all } = await checkout.lab("up", stack);
    assert.equal(exitCode, 2, all);
    for (const fault of [
      /the host s1 \(pi@192\.168\.45\.250 port 22\): it cannot be reached: .*No route to host/,
      /the host s2 .*: SSH refuses this user or key: add the public key/,
      /the host s3 .*: its host key is not the expected one: .*ssh\.hostKey/,
      /the host a1 \(guest@.*: guest may not use sudo without a password; allow it there: echo 'guest ALL=/,
      /the host a2 .*: K3s of another cluster is installed there; remove it first/,
      /the host a3 .*: 192\.168\.45\.15 is on eth0, not on eth9; set the machine's `interface`/,
    ])
      assert.match(all, fault);
    await fleet.on("a2", "rm", "/usr/local/bin/k3s");
    assert.deepEqual(await changedHosts(), []);
  });

  test("three servers and three agents start side by side and pass verification", async () => {
    await writeStackFile(await wanted());
    const up = await succeeded(await checkout.lab("up", ...stacks));
    console.log(`${names.length} hosts and three apps after ${up.seconds.toFixed(0)} s`);
    assert.match(up.stdout, /s1 +server +192\.168\.45\.10 +host key SHA256:\S+/);
    assert.match(up.stdout, /a1 +agent +192\.168\.45\.13 +host key as in the stack file/);
    assert.deepEqual(await nodeNames(), [...names].sort());
  });

  test("the servers store the cluster in etcd, and flannel uses the interface with the address", async () => {
    const etcd = await kubectl(
      ...["get", "nodes", "--selector=node-role.kubernetes.io/etcd=true"],
      "--output=jsonpath={.items[*].metadata.name}",
    );
    assert.deepEqual(etcd.split(" ").sort(), servers);
    assert.match(await fleet.on("a1", "systemctl", "cat", "k3s-agent"), /'--flannel-iface=eth0'/);
  });

  test("the apps answer by host name through a server and an agent", async () => {
    for (const address of [fleet.address("s3"), fleet.address("a3")]) {
      assert.equal((await ask(address, "app1.com")).app, "app1");
      assert.equal((await ask(address, "app2.com")).app, "app2");
      assert.equal((await ask(address, "anything.else")).app, "app3");
    }
  });

  test("a preview shows no change; flags change in place", async () => {
    const preview = (...options: string[]) => checkout.pulumi("preview", stack, ...options);
    await succeeded(await preview("--expect-no-changes"));
    await writeStackFile(await wanted(), "[--kubelet-arg=max-pods=177]");
    const { all } = await succeeded(await preview());
    assert.match(all, new RegExp(`~ ${agents.length} to update`));
    assert.doesNotMatch(all, /to (create|delete|replace)/);
    await succeeded(await checkout.lab("up", ...stacks));
    assert.equal(await kubectl("get", "node", "a2", "--output=jsonpath={.status.capacity.pods}"), "177");
  });

  test("another provider is previewed as a replacement of every machine", async () => {
    await writeFile(
      join(checkout.directory, `Pulumi.${stack}.yaml`),
      [
        "config:",
        "  k3s-lab:provider: docker",
        "  k3s-lab:network: 192.168.45.0/24",
        "  k3s-lab:machines:",
        ...names.map(
          (name) =>
            `    - {name: ${name}, role: ${servers.includes(name) ? "server" : "agent"}, ip: ${fleet.address(name)}}`,
        ),
        "",
      ].join("\n"),
    );
    // Whether there are such machines already, Docker is asked.
    const asked = fleet.docker === undefined ? [] : [`DOCKER_HOST=${fleet.docker}`];
    const { all } = await succeeded(
      await checkout.run("env", ...asked, "pulumi", "preview", "--stack", stack, "--non-interactive"),
    );
    for (const name of names) assert.match(all, new RegExp(`command:local:Command ${name} replace`));
    await writeStackFile(await wanted(), "[--kubelet-arg=max-pods=177]");
  });

  test("losing the first server: the API and the apps continue, `lab verify` names it, and it comes back", async () => {
    await fleet.stop("s1");
    const nodes = await kubectl("--context", `k3s-lab-${stack}-2`, "get", "nodes", "--no-headers");
    assert.equal(nodes.split("\n").length, names.length);
    await pWaitFor(
      async () => {
        const apps = await Promise.all(
          ["app1.com", "app2.com", "x.y"].map((host) =>
            ask(fleet.address("s2"), host).catch(() => undefined),
          ),
        );
        return apps.every((answer) => answer !== undefined);
      },
      { interval: 1000, timeout: 180_000 },
    );
    const verified = await checkout.lab("verify", stack, "--json");
    assert.equal(verified.exitCode, 1);
    const failed = (JSON.parse(verified.stdout) as { checks: { id: string; ok: boolean }[] }).checks
      .filter(({ ok }) => !ok)
      .map(({ id }) => id);
    assert.ok(failed.includes(`${stack}/s1/interface`), failed.join(" "));
    assert.deepEqual(
      failed.filter((id) => names.some((name) => name !== "s1" && id.includes(`/${name}/`))),
      [],
    );
    await fleet.start("s1");
    await succeeded(await checkout.lab("verify", ...stacks, "--wait", "240"));
  });

  test("a reinstalled host is refused until its key is accepted, then joins the existing cluster", async () => {
    await fleet.reinstall("s1");
    const refused = await checkout.lab("up", ...stacks);
    assert.equal(refused.exitCode, 2);
    assert.match(
      refused.all,
      /the host s1 .*: its host key is not the expected one: .*remove (\S+\/known_hosts)/,
    );
    await rm(join(checkout.directory, ".lab", "ssh", `s1.${stack}`, "known_hosts"));
    await succeeded(await checkout.lab("up", ...stacks));
    assert.deepEqual(await nodeNames(), [...names].sort());
    // Two clusters would each have a node of their own.
    assert.deepEqual(await nodeNames("--context", `k3s-lab-${stack}-3`), [...names].sort());
  });

  test("`lab down` leaves the hosts as they were", async () => {
    await succeeded(await checkout.lab("down", ...stacks));
    assert.deepEqual(await changedHosts(), []);
  });
});
