import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { glob, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe } from "node:test";
import { execa } from "execa";
import pWaitFor from "p-wait-for";
import { ensurePackages } from "../../scripts/host/packages.ts";
import { cacheDir } from "../../stacks/lib/paths.ts";
import { providers } from "../../stacks/model/provider.ts";
import { type Checkout, copyCheckout, type Outcome } from "../e2e/checkout.ts";
import { ask, hostState, newOnHost } from "../e2e/host.ts";
import { steps } from "../steps.ts";

// The lab on real virtual machines, from nothing to nothing; where KVM boots no guest, QEMU emulates their processors.

/** The whole of this file: what hangs must not hang for ever. */
const timeout = 25 * 60_000;

const server = "192.168.42.110";
const agent = "192.168.42.111";
const apps = [
  ["app1.com", "app1"],
  ["app2.com", "app2"],
  ["else.org", "app3"],
] as const;
/** The agent as the stack file has it; it joins last, for two emulated processors are enough for one machine. */
const agentLine = "    - {name: agent, role: agent, ip: 192.168.42.111, cpus: 2, memory: 1024}\n";

let checkout: Checkout;
let folder: string;
let hostBefore: ReadonlySet<string>;
let libvirtBefore: ReadonlySet<string>;

/** What a lab of virtual machines could leave on this computer beside what any lab could, a line each. */
async function state(): Promise<ReadonlySet<string>> {
  const questions = [
    ["iptables", "--table", "mangle", "--list-rules"],
    ["ip6tables", "--list-rules"],
    ["sysctl", "net.ipv4.ip_forward"],
    ["virsh", "--connect", "qemu:///system", "list", "--all", "--name"],
    ["find", "/etc/libvirt", "/var/lib/libvirt", "-type", "f", "-newer", join(folder, "began")],
    // Without those that have ended and only wait to be reaped (Z).
    ["sh", "-c", "ps -eo stat=,pid=,comm= | grep -E '^[^Z].* (libvirtd|virtlogd|dnsmasq|qemu-system)'"],
  ] as const;
  const lists = questions.map(async ([file, ...args]) => {
    const { stdout = "" } = await execa(file, args, { reject: false });
    const lines = stdout.split("\n").filter(Boolean);
    return lines.map((line) => `${file} ${file === "sh" ? line.replace(/^\S+ +/, "") : line}`);
  });
  return new Set((await Promise.all(lists)).flat());
}

const appeared = async (): Promise<string[]> => [
  ...(await newOnHost(hostBefore, checkout.directory)),
  ...[...(await state())].filter((line) => !libvirtBefore.has(line)),
];

const succeeded = async (outcome: Outcome): Promise<Outcome> =>
  outcome.exitCode === 0
    ? outcome
    : assert.fail(
        `${outcome.command} ended with ${outcome.exitCode} after ${outcome.seconds} s:\n${outcome.all.split("\n").slice(-40).join("\n")}\n\n${await evidence()}`,
      );
const pulumi = (...args: string[]) => checkout.run("pulumi", ...args, "--non-interactive");

/** Whether each app answers at this address under its host name. */
async function answers(address: string): Promise<boolean> {
  for (const [host, app] of apps)
    if ((await ask(address, host).catch(() => undefined))?.app !== app) return false;
  return true;
}

/** A request to an emulated machine may take more than one try. */
const answered = (address: string): Promise<void> =>
  pWaitFor(() => answers(address), {
    interval: 1000,
    timeout: { milliseconds: 120_000, message: `no answer from the apps at ${address}` },
  });

/** What the machines say of themselves: states, the last lines of their consoles and of K3s. */
async function evidence(): Promise<string> {
  const texts = [(await execa("virsh", ["-c", "qemu:///system", "list", "--all"], { reject: false })).stdout];
  for await (const file of glob(".lab/cluster/*.console", { cwd: checkout.directory }))
    texts.push(file, (await readFile(join(checkout.directory, file), "utf8")).slice(-2000));
  for (const name of ["server", "agent"]) {
    const journal = ["ssh", name, "--command", "sudo journalctl --no-pager --lines 30 --unit 'k3s*'"];
    texts.push(`K3s on ${name}`, (await checkout.run("vagrant", ...journal)).all);
  }
  texts.push((await checkout.run("kubectl", "get", "nodes,pods", "--all-namespaces", "--output=wide")).all);
  return texts.join("\n");
}

describe("a lab on libvirt machines", { concurrency: false, timeout }, () => {
  const { test } = steps();
  before(async () => {
    // Installing libvirt writes its configuration, which is not the lab's to remove: it belongs to the state before.
    await ensurePackages(providers.libvirt.packages, console.log);
    folder = await mkdtemp(join(tmpdir(), "k3s-lab-vm-"));
    await writeFile(join(folder, "began"), "");
    checkout = await copyCheckout();
    await checkout.edit("Pulumi.cluster.yaml", "k3s-lab:provider: auto", "k3s-lab:provider: libvirt");
    await checkout.edit("Pulumi.cluster.yaml", agentLine, "");
    hostBefore = await hostState(checkout.directory);
    libvirtBefore = await state();
  });
  after(async () => {
    await checkout.lab("down");
    await checkout.remove();
    await rm(folder, { recursive: true });
  });

  test("a box with a wrong checksum is one clear error, and nothing of it stays", async () => {
    const file = join(folder, "other.box");
    await writeFile(file, "not the box that was meant");
    const sha256 = createHash("sha256").update("the box that was meant").digest("hex");
    const box = `k3s-lab:box: {name: k3s-lab/other, version: 1.0.0, url: "file://${file}", sha256: ${sha256}}`;
    await checkout.edit("Pulumi.cluster.yaml", "  k3s-lab:network:", `  ${box}\n  k3s-lab:network:`);
    const { exitCode, all } = await checkout.lab("up");
    assert.equal(exitCode, 2, all);
    assert.match(all, new RegExp(`The box k3s-lab/other 1.0.0 .* does not have the SHA-256 ${sha256}`));
    const { stdout } = await checkout.run("vagrant", "box", "list");
    assert.doesNotMatch(stdout, /k3s-lab\/other/);
    await checkout.edit("Pulumi.cluster.yaml", `  ${box}\n`, "");
    await succeeded(await checkout.lab("down"));
    assert.deepEqual(await appeared(), []);
  });

  test("`lab box build` shows where the box is, and again when it exists", async () => {
    const build = async () =>
      JSON.parse((await succeeded(await checkout.lab("box", "build", "--json"))).stdout) as {
        readonly path: string;
        readonly sha256: string;
        readonly seconds: number;
      };
    const built = await build();
    assert.ok(built.path.startsWith(cacheDir));
    console.log(`the box took ${built.seconds} s`);
    assert.equal((await build()).sha256, built.sha256);
  });

  test("`lab up`: three apps answer by host name from one machine with two CPUs, and verification passes", async () => {
    const began = performance.now();
    let ended = false;
    const up = checkout.lab("up").finally(() => {
      ended = true;
    });
    await pWaitFor(async () => ended || (await answers(server)), { interval: 1000 });
    const took = performance.now() - began;
    const outcome = await succeeded(await up);
    console.log(
      `three apps answered after ${(took / 1000).toFixed(0)} s; lab up ended after ${outcome.seconds.toFixed(0)} s`,
    );
    await answered(server);
  });

  test("an agent joins, and the apps answer at its address too", async () => {
    const serverLine = `    - {name: server, role: server, ip: ${server}, cpus: 2, memory: 2048}\n`;
    await checkout.edit(
      "Pulumi.cluster.yaml",
      serverLine,
      serverLine + agentLine.replace("cpus: 2", "cpus: 1"),
    );
    const { seconds } = await succeeded(await checkout.lab("up"));
    console.log(`with an agent after ${seconds.toFixed(0)} s more`);
    await answered(agent);
  });

  test("they are virtual machines: own kernel, eth1 with the address, flannel on it, nodes Ready", async () => {
    const { stdout: host } = await execa("uname", ["--kernel-release"]);
    for (const [name, address] of [
      ["server", server],
      ["agent", agent],
    ] as const) {
      const question =
        "uname -r; systemd-detect-virt; ip -brief -4 address show eth1; ip -details link show flannel.1";
      const { stdout } = await succeeded(await checkout.run("vagrant", "ssh", name, "--command", question));
      assert.ok(!stdout.includes(host), stdout);
      assert.match(stdout, /^(qemu|kvm)$/m);
      assert.ok(stdout.includes(` ${address}/24`), stdout);
      assert.match(stdout, /vxlan id 1 .*local 192\.168\.42\.\d+ dev eth1/);
    }
    const { stdout } = await succeeded(await checkout.run("kubectl", "get", "nodes", "--no-headers"));
    assert.equal(stdout.match(/ Ready /g)?.length, 2, stdout);
  });

  test("a preview shows no change, and `lab up` with another provider asks before it replaces the machines", async () => {
    const unchanged = async () =>
      await succeeded(await pulumi("preview", "--stack", "cluster", "--expect-no-changes"));
    await unchanged();
    await checkout.edit("Pulumi.cluster.yaml", "provider: libvirt", "provider: docker");
    const { exitCode, all } = await checkout.lab("up");
    assert.equal(exitCode, 3, all);
    assert.match(all, /would be lost:[\s\S]*server[\s\S]*agent/);
    await checkout.edit("Pulumi.cluster.yaml", "provider: docker", "provider: libvirt");
    await unchanged();
  });

  test("`lab down` leaves the host as it was, including an unknown machine", async () => {
    // As an interrupted `vagrant up` leaves it: a domain without the note that names it.
    await rm(join(checkout.directory, ".lab/cluster/vagrant/machines/agent/libvirt/id"));
    await succeeded(await checkout.lab("down"));
    assert.deepEqual(await appeared(), []);
  });
});
