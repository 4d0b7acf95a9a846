import assert from "node:assert/strict";
import { test } from "node:test";
import { LabError } from "../stacks/lib/errors.ts";
import { providers } from "../stacks/model/provider.ts";
import { type Computer, examine, type Finding, renderFindings, summarizeFindings } from "./doctor.ts";
import { fakeRun } from "./host/fake-run.ts";
import { tools } from "./toolchain/tools.ts";

const GiB = 1024 ** 3;
const config = (provider: "auto" | "libvirt" | "virtualbox" | "hosts" = "auto") => ({
  provider,
  provisioner: "shell" as const,
  network: "192.168.42.0/24",
  machines: [{ name: "server", role: "server" as const, ip: "192.168.42.110", cpus: 2, memory: 2048 }],
  k3s: { serverArgs: [], agentArgs: [] },
});

const versions = fakeRun(
  [/^npm/, { stdout: "11.0.0\n" }],
  [/^vagrant/, { stdout: "Vagrant 2.3.4\n" }],
  [/^VBoxManage/, { stdout: "7.1.4r165100\n" }],
);

/** A computer that has all it needs. */
const well: Computer = {
  run: versions.run,
  platform: "linux",
  stacks: async () => ({ machines: [["cluster", config()]], k3d: [], external: [], apps: [] }),
  tools: async () =>
    Object.values(tools).map((tool) => ({
      tool,
      way: "release" as const,
      version: tool.version,
      installed: { dir: "/tools", files: {}, size: 1, installed: "" },
    })),
  go: async () => ({ command: "go" }),
  docker: async () => ({ host: "unix:///run/lab.sock" }),
  probes: {
    libvirt: async () => "libvirt is not installed",
    virtualbox: async () => "VirtualBox is not installed",
  },
  facts: async () => ({
    memoryAvailable: 8 * GiB,
    diskFree: 50 * GiB,
  }),
  missingPackages: async () => [],
  canBeRoot: async () => true,
  refuseUnlessAllowed: async () => {},
  refuseTakenPorts: async () => {},
  refuseExternal: async () => {},
  hasMachines: async () => false,
  traces: async () => ({ locks: [], forgotten: [] }),
  quirks: async () => [],
  refuseOverlapping: async () => {},
  bootstrap: async () => "root",
};

/** What is found by id, of a computer that differs so from one that has all it needs. */
async function found(changes: Partial<Computer>): Promise<(id: string) => Omit<Finding, "id" | "title">> {
  const findings = await examine(["cluster"], { ...well, ...changes });
  return (id) => {
    const one = findings.find((finding) => finding.id === id);
    assert.ok(one, `${id} is not among ${findings.map((finding) => finding.id).join(", ")}`);
    const { status, found, fix } = one;
    return { status, found, ...(fix ? { fix } : {}) };
  };
}

const withProvider = (provider: "libvirt" | "virtualbox" | "hosts"): Partial<Computer> => ({
  stacks: async () => ({ machines: [["cluster", config(provider)]], k3d: [], external: [], apps: [] }),
});

test("a complete machine has no problems, and each provider's reason is shown", async () => {
  const findings = await examine(["cluster"], well);
  assert.deepEqual(
    findings.filter(({ status }) => status !== "ok"),
    [],
  );
  const of = await found({});
  assert.match(of("cluster/provider").found, /^docker \(machines are containers here: /);
  assert.deepEqual(of("cluster/libvirt"), {
    status: "ok",
    found: "not used: libvirt is not installed",
    fix: `sudo apt-get update && sudo apt-get install -y --no-install-recommends --no-remove ${providers.libvirt.packages.join(" ")}`,
  });
});

test("faults in stack files are findings and do not stop the other checks", async () => {
  const fault = new LabError("Pulumi.cluster.yaml: k3s-lab:network is not accepted", { exitCode: 2 });
  const of = await found({ stacks: () => Promise.reject(fault) });
  assert.deepEqual(of("cluster/file"), { status: "problem", found: fault.message });
  assert.equal(of("computer").status, "ok");
});

test("packages that `lab up` installs are a warning as root, and a problem with the command otherwise", async () => {
  const changes: Partial<Computer> = { missingPackages: async () => ["vagrant"] };
  const command =
    "sudo apt-get update && sudo apt-get install -y --no-install-recommends --no-remove vagrant";
  const fix = { found: "missing: vagrant; `lab up` takes care of it", fix: command };
  assert.deepEqual((await found(changes))("cluster/packages"), { status: "warning", ...fix });
  const user = await found({ ...changes, canBeRoot: async () => false });
  assert.deepEqual(user("cluster/packages"), { status: "problem", found: "missing: vagrant", fix: command });
});

test("another user's Docker is a problem, and the command is shown separately", async () => {
  const reason = new LabError(
    "Docker runs here, but not for you. Join its group:\n  sudo usermod -aG docker me",
  );
  const of = await found({ docker: () => Promise.reject(reason) });
  assert.deepEqual(of("cluster/docker"), {
    status: "problem",
    found: "Docker runs here, but not for you. Join its group:",
    fix: "sudo usermod -aG docker me",
  });
});

test("a provider in the stack file that is unusable is a problem with its fix", async () => {
  const of = await found({
    ...withProvider("libvirt"),
    probes: { ...well.probes, libvirt: async () => "you may not use /dev/kvm" },
  });
  assert.deepEqual(of("cluster/libvirt"), {
    status: "problem",
    found: "you may not use /dev/kvm",
    fix: 'sudo usermod -aG kvm "$USER", then log in again',
  });
});

test("VirtualBox: its networks, and a Vagrant too old for it", async () => {
  const of = await found({
    ...withProvider("virtualbox"),
    probes: { ...well.probes, virtualbox: async () => undefined },
    refuseUnlessAllowed: () =>
      Promise.reject(new LabError("the line\n  * 192.168.42.0/24\nAdd it with:\n  echo it")),
  });
  assert.deepEqual(of("cluster/networks"), {
    status: "problem",
    found: "the line\n  * 192.168.42.0/24\nAdd it with:",
    fix: "echo it",
  });
  assert.match(of("cluster/vagrant").found, /2\.3\.4 does not support VirtualBox 7\.1\.4; Vagrant 2\.4\.2/);
  assert.equal(of("cluster/docker").found, "not used");
  const newer = fakeRun([/^vagrant/, { stdout: "Vagrant 2.4.10" }], [/./, { stdout: "7.1.4r1" }]);
  const good = await found({ ...withProvider("virtualbox"), run: newer.run });
  assert.equal(good("cluster/vagrant").status, "ok");
});

test("missing tools: the download time, and Go only if something would be built", async () => {
  const none = async () =>
    (await well.tools()).map(({ installed: _, ...one }) => ({ ...one, installed: undefined }));
  const of = await found({ tools: none });
  assert.match(
    of("tools").found,
    /^5 of 5 not installed: pulumi, .* in a minute by download or 15 min with Go$/,
  );
  const without = await found({ tools: none, go: async () => ({ missing: "there is no go on PATH" }) });
  assert.match(without("tools").found, /by download; they cannot be built: there is no go on PATH$/);
  assert.equal((await found({ go: async () => ({ missing: "no go" }) }))("tools").status, "ok");
});

test("low memory or disk is a problem only before the machines exist", async () => {
  const facts = async () => ({ ...(await well.facts()), memoryAvailable: GiB });
  assert.match((await found({ facts }))("cluster/room").found, /need 2\.0 GiB of memory and 1\.0 GiB/);
  assert.equal((await found({ facts, hasMachines: async () => true }))("cluster/room").status, "ok");
});

test("provider hosts needs no Vagrant, Docker or local memory", async () => {
  const facts = async () => ({ ...(await well.facts()), memoryAvailable: GiB });
  const of = await found({ ...withProvider("hosts"), facts });
  assert.deepEqual(of("cluster/vagrant"), { status: "ok", found: "not used" });
  assert.deepEqual(of("cluster/docker"), { status: "ok", found: "not used" });
  assert.deepEqual(of("cluster/packages"), { status: "ok", found: "openssh-client, iproute2" });
  assert.equal(of("cluster/room").status, "ok");
});

test("shows who holds a stack and what an interrupted run left behind", async () => {
  const traces = (locks: readonly { pid: number; alive: boolean }[], forgotten: readonly string[] = []) =>
    found({ traces: async () => ({ locks, forgotten }) });
  assert.deepEqual((await traces([{ pid: 42, alive: true }]))("cluster/runs"), {
    status: "problem",
    found: "locked by process 42",
    fix: "Check what it is: ps -f -p 42. If it is a `lab` or `pulumi`, wait until it ends or press Ctrl-C in its terminal.",
  });
  assert.equal((await traces([{ pid: 42, alive: false }]))("cluster/runs").status, "ok");
  assert.deepEqual((await traces([], ["agent"]))("cluster/runs"), {
    status: "warning",
    found: "an interrupted run left resources that are missing from Pulumi's state: agent",
    fix: "scripts/lab down cluster",
  });
});

test("runs each probe once, however many findings use it", async () => {
  let looks = 0;
  const libvirt = async () => {
    looks += 1;
    return undefined;
  };
  await examine(["cluster"], { ...well, probes: { ...well.probes, libvirt } });
  assert.equal(looks, 1);
});

test("unexpected errors are not swallowed", async () => {
  await assert.rejects(found({ facts: () => Promise.reject(new TypeError("a bug")) }), TypeError);
});

test("prints a line per finding, with the next step below each problem", () => {
  const findings: Finding[] = [
    { id: "a", title: "A", status: "ok", found: "fine", fix: "unneeded" },
    { id: "b", title: "B", status: "problem", found: "two\nlines", fix: "do this" },
    { id: "c", title: "C", status: "warning", found: "hm" },
  ];
  assert.equal(
    renderFindings(findings),
    "ok      A: fine\nPROBLEM B: two\n        lines\n        next: do this\nwarning C: hm",
  );
  assert.match(renderFindings(findings, true), /✘/);
  assert.equal(summarizeFindings(findings, 1234), "1 problem, 1 warning (1.2 s)");
  assert.equal(summarizeFindings([], 10), "no problems, no warnings (0.0 s)");
});

test("a network in use and a Debian that cannot be built are problems with their fixes", async () => {
  const look = await found({
    refuseOverlapping: async (network) => {
      throw new LabError(
        `k3s-lab:network ${network} overlaps networks that this computer already uses: tun0.`,
      );
    },
    bootstrap: async (install) => {
      await install(["uidmap"]);
      return "unshare";
    },
    missingPackages: async (names) => names.filter((name) => name === "uidmap"),
    canBeRoot: async () => false,
  });
  assert.match(look("cluster/room").found, /192\.168\.42\.0\/24 overlaps/);
  assert.equal(look("cluster/room").status, "problem");
  assert.match(look("cluster/debian").fix ?? "", /apt-get install .* uidmap$/);
});

test("shows what is unusual about this machine and the workaround if it matters", async () => {
  const look = await found({
    quirks: async () => [
      { found: "SELinux is enforcing" },
      { found: "/tmp is mounted noexec", fix: "export TMPDIR=…" },
    ],
  });
  assert.equal(look("computer").status, "warning");
  assert.match(look("computer").found, /SELinux is enforcing\n\/tmp is mounted noexec/);
  assert.equal(look("computer").fix, "export TMPDIR=…");
});
