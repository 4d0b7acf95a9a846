import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, describe } from "node:test";
import { execa } from "execa";
import pWaitFor from "p-wait-for";
import { type Checkout, copyCheckout, type Outcome } from "../../e2e/checkout.ts";
import { steps } from "../../steps.ts";

// A bad line, a network that is cut, clocks that differ, too little memory, a full disk and a loss of power, under a lab of a
// server and an agent with its apps, and under three servers. What may not be lost is compared before and after: machines,
// the cluster, what K3s keeps, a ConfigMap. The faults of a lab share it, and each goes by itself as well.

let checkout: Checkout;
const stack = "cluster";
const address = {
  server: "192.168.42.110",
  agent: "192.168.42.111",
  s1: "192.168.42.120",
  s2: "192.168.42.121",
  s3: "192.168.42.122",
} as const;
type Name = keyof typeof address;

const succeeded = (outcome: Outcome): Promise<Outcome> => checkout.succeeded(outcome);
const container = (name: Name): string => `k3s-lab-${stack}-${name}`;
const docker = (...args: string[]) => checkout.run("docker", ...args);
const on = (name: Name, ...command: string[]) => docker("exec", container(name), ...command);
const shell = (name: Name, script: string) => on(name, "sh", "-c", script);
const kubectl = async (...args: string[]): Promise<string> =>
  (await succeeded(await checkout.run("kubectl", ...args))).stdout;
const preview = (...options: string[]) =>
  checkout.run("pulumi", "preview", "--stack", stack, "--non-interactive", ...options);
const words = ({ exitCode, seconds }: Outcome): string => `exit ${exitCode} after ${seconds.toFixed(0)} s`;

/** Brings the lab up, unless it is, with something that may not be lost. */
async function isUp(...stacks: string[]): Promise<void> {
  await succeeded(await checkout.lab("up", ...stacks));
  await checkout.run("kubectl", "create", "configmap", "kept", "--from-literal=a=b");
}

/** What must stay as it is, by what it is called. */
async function alive(...names: readonly Name[]): Promise<ReadonlyMap<string, string>> {
  const found = new Map<string, string>();
  for (const name of names) {
    found.set(
      `the machine ${name}`,
      (await docker("inspect", "--format", "{{.Id}}", container(name))).stdout,
    );
    // The first certificate of a node is as old as its installation.
    const made = "stat --format=%i.%W /var/lib/rancher/k3s/agent/client-kubelet.key";
    found.set(`what K3s keeps on ${name}`, (await shell(name, made)).stdout);
    const config = "sha256sum </etc/rancher/k3s/token";
    found.set(`the token on ${name}`, (await shell(name, config)).stdout);
  }
  const uid = "--output=jsonpath={.metadata.uid}";
  found.set("the cluster", await kubectl("get", "namespace", "kube-system", uid));
  found.set("the ConfigMap", await kubectl("get", "configmap", "kept", uid));
  for (const name of names) found.set(`the node ${name}`, await kubectl("get", "node", name, uid));
  return found;
}

/** What is not as it was. A lab that does not answer has lost nothing yet: it is put right before. */
async function lost(was: ReadonlyMap<string, string>, ...names: readonly Name[]): Promise<string> {
  const now = await alive(...names);
  return [...was].flatMap(([what, it]) => (now.get(what) === it ? [] : [what])).join(", ") || "nothing";
}

const flagsOf = (name: Name): Promise<string> =>
  shell(name, "cat /etc/systemd/system/k3s*.service").then(({ stdout }) => stdout);

/** Gives the nodes of a role another flag, which takes nothing away. */
let pods = 110;
let flags = { serverArgs: "serverArgs: [--write-kubeconfig-mode=644]", agentArgs: "agentArgs: []" };
async function change(...roles: readonly (keyof typeof flags)[]): Promise<string> {
  pods += 1;
  const flag = `--kubelet-arg=max-pods=${pods}`;
  for (const role of roles) {
    const next =
      role === "agentArgs" ? `agentArgs: [${flag}]` : `serverArgs: [--write-kubeconfig-mode=644, ${flag}]`;
    await checkout.edit(`Pulumi.${stack}.yaml`, flags[role], next);
    flags = { ...flags, [role]: next };
  }
  return flag;
}

/** Runs a program of this computer in the network namespace of a machine. */
async function inNetworkOf(name: Name): Promise<readonly string[]> {
  const { stdout } = await docker("inspect", "--format", "{{.State.Pid}}", container(name));
  if (!(Number(stdout) > 0)) throw new Error(`${name} does not run: ${stdout}`);
  return ["nsenter", `--net=/proc/${stdout}/ns/net`];
}
const inNetwork = async (name: Name, ...command: string[]) => {
  const [program = "", ...rest] = [...(await inNetworkOf(name)), ...command];
  return execa(program, rest, { reject: false, all: true });
};
const iptables = async (name: Name, ...rule: string[]): Promise<void> => {
  const { failed, all } = await inNetwork(name, "iptables", "--wait", "--table", "mangle", ...rule);
  assert.equal(failed, false, all);
};

/** Cuts a machine off from others, in both directions, pods included. This computer still reaches it. */
async function cut(name: Name, ...others: readonly Name[]): Promise<void> {
  for (const other of others)
    for (const rule of [
      ["PREROUTING", "--source", address[other]],
      ["PREROUTING", "--destination", address[other]],
      ["OUTPUT", "--destination", address[other]],
    ])
      await iptables(name, "--insert", ...rule, "--jump", "DROP");
}
const reconnect = (name: Name): Promise<void> =>
  iptables(name, "--flush", "PREROUTING").then(() => iptables(name, "--flush", "OUTPUT"));

/** A line that is bad: what a machine sends on eth1 arrives 15 ms late, and one packet in a hundred does not. */
interface BadLine {
  /** How it was made. */
  readonly by: string;
  /** Takes it away. @returns packets that passed, and that were lost; undefined where the kernel counts for itself. */
  end(): Promise<readonly number[] | undefined>;
}
async function badLine(name: Name): Promise<BadLine> {
  const netem = await inNetwork(name, ..."tc qdisc add dev eth1 root netem loss 1% delay 15ms".split(" "));
  if (!netem.failed)
    return {
      by: "netem",
      end: async () => {
        await inNetwork(name, ..."tc qdisc del dev eth1 root".split(" "));
        return undefined;
      },
    };
  const queue = ["-o", "eth1", "-j", "NFQUEUE", "--queue-num", "15", "--queue-bypass"];
  await iptables(name, "--append", "POSTROUTING", ...queue);
  const [program = "", ...rest] = await inNetworkOf(name);
  const file = join(import.meta.dirname, "bad-line.py");
  const child: ChildProcess = spawn(program, [...rest, "python3", file, "15", "0.01", "15"], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  let said = "";
  child.stdout?.on("data", (part: Buffer) => {
    said += part.toString();
  });
  await pWaitFor(() => said.includes("ready"), { interval: 20, timeout: 10_000 });
  return {
    by: `a queue of packets, for there is no netem (${netem.stderr.trim()})`,
    end: async () => {
      child.kill("SIGTERM");
      await once(child, "close");
      await iptables(name, "--delete", "POSTROUTING", ...queue).catch(() => {});
      return said.trim().split("\n").at(-1)?.split(" ").map(Number);
    },
  };
}

/** Does something while the lines of machines are bad; of those that are not there yet from when they are. */
async function overBadLines(names: readonly Name[], work: () => Promise<Outcome>): Promise<string> {
  const lines: Promise<BadLine>[] = names.map(async (name) => {
    await pWaitFor(async () => !(await inNetwork(name, "true").catch(() => ({ failed: true }))).failed, {
      interval: 200,
      timeout: 180_000,
    });
    return badLine(name);
  });
  for (const line of lines) line.catch(() => {});
  const done = await work();
  const ended = await Promise.all(
    lines.map(async (line) => ({ by: (await line).by, sum: await (await line).end() })),
  );
  await succeeded(done);
  const [{ by } = { by: "" }] = ended;
  const passed = ended.reduce((sum, { sum: [one = 0] = [] }) => sum + one, 0);
  const gone = ended.reduce((sum, { sum: [, one = 0] = [] }) => sum + one, 0);
  if (by !== "netem") assert.ok(gone > 10 && passed > 1000, `${gone} of ${passed + gone} packets were lost`);
  return `${words(done)}; by ${by}; ${gone} of ${passed + gone} packets lost`;
}

/** Runs `lab` with a clock that is set otherwise: for programs that ask libc, which Go's do not. */
const labAt = async (offset: string, ...args: string[]): Promise<Outcome> => {
  const result = await execa("faketime", ["-f", offset, "scripts/lab", ...args], {
    cwd: checkout.directory,
    reject: false,
    all: true,
    stdin: "ignore",
    env: { FAKETIME_DONT_FAKE_MONOTONIC: "1", NO_FAKE_STAT: "1", PULUMI_ERROR_OUTPUT_STRING: "true" },
  });
  const { command, exitCode, stdout, all, durationMs } = result;
  return { command, exitCode, stdout, all, seconds: durationMs / 1000 };
};
const hasFaketime = !(await execa("faketime", ["--version"], { reject: false })).failed;
const canInject = process.platform === "linux" && process.getuid?.() === 0;
const options: { readonly skip: string | false } = {
  skip: canInject ? false : "only root may change a machine's network from outside",
};

const assertSafe = (outcome: Outcome): void =>
  assert.doesNotMatch(outcome.all, /(to|\d) (replace|delete)|\breplaced\b|\bdeleted\b|would be lost/);

describe("a server, an agent and the apps", { concurrency: false }, () => {
  const { fault } = steps();
  const both = ["server", "agent"] as const;
  before(async () => {
    checkout = await copyCheckout();
  });
  after(async () => {
    await checkout.lab("down");
    await checkout.remove();
  });

  fault(
    "1 % loss and 15 ms: `lab up` from nothing",
    async () => {
      const happened = await overBadLines(both, () => checkout.lab("up"));
      await isUp();
      return { happened, lost: "nothing" };
    },
    options,
  );

  fault(
    "1 % loss and 15 ms: flags change on all nodes",
    async () => {
      await isUp();
      const was = await alive(...both);
      const flag = await change("serverArgs", "agentArgs");
      const happened = await overBadLines(both, () => checkout.lab("up"));
      for (const name of both) assert.match(await flagsOf(name), new RegExp(flag));
      return { happened, lost: await lost(was, ...both) };
    },
    options,
  );

  fault(
    "a cut network: while nothing runs, then the agent's flags change",
    async () => {
      await isUp();
      const was = await alive(...both);
      const before = await flagsOf("agent");
      await cut("agent", "server");
      const seen = await succeeded(await preview());
      assert.match(seen.all, /command:local:Command agent update/);
      assertSafe(seen);
      const verified = await checkout.lab("verify");
      assert.equal(verified.exitCode, 1);
      assert.match(verified.all, /to one on agent|agent: the node is Ready/);
      const same = await checkout.lab("up", stack);
      assert.equal(same.exitCode, 1, same.all);
      assert.match(
        same.all,
        /no server answers it at 192\.168\.42\.110\. Nothing was touched: .*the network/,
      );
      assertSafe(same);
      const flag = await change("agentArgs");
      const changed = await checkout.lab("up", stack);
      assert.equal(changed.exitCode, 1, changed.all);
      assert.match(changed.all, /no server answers it at/);
      assertSafe(changed);
      assert.equal(await flagsOf("agent"), before, "the agent was changed");
      await reconnect("agent");
      const next = await succeeded(await checkout.lab("up"));
      assert.match(await flagsOf("agent"), new RegExp(flag));
      return {
        happened: `verify ${words(verified)}; up ${words(same)}; with new flags ${words(changed)}; then ${words(next)}`,
        lost: await lost(was, ...both),
      };
    },
    options,
  );

  fault(
    "a cut network: in the middle of a change of the agent's flags",
    async () => {
      await isUp();
      const was = await alive(...both);
      const flag = await change("agentArgs");
      const changing = checkout.lab("up", stack);
      await pWaitFor(
        async () => (await on("agent", "test", "-d", "/var/lib/k3s-lab/before")).exitCode === 0,
        {
          interval: 100,
          timeout: 120_000,
        },
      );
      await cut("agent", "server");
      const failed = await changing;
      assert.equal(failed.exitCode, 1, failed.all);
      assert.match(failed.all, /the previous installation is restored.*no server answers it at/s);
      assert.doesNotMatch(await flagsOf("agent"), new RegExp(flag));
      assertSafe(failed);
      await reconnect("agent");
      const next = await succeeded(await checkout.lab("up"));
      assert.match(await flagsOf("agent"), new RegExp(flag));
      return {
        happened: `${words(failed)}, the old flags are back; then ${words(next)}`,
        lost: await lost(was, ...both),
      };
    },
    options,
  );

  fault(
    "OOM: the kernel kills K3s on the server",
    async () => {
      await isUp();
      const was = await alive(...both);
      const pid = async () => (await shell("server", "systemctl show --property MainPID --value k3s")).stdout;
      const killed = await pid();
      // K3s is the first to go.
      const hog = `echo 1000 >/proc/${killed}/oom_score_adj
        used=$(sed -n 's/^\\(anon\\|total_rss\\) //p' /sys/fs/cgroup/memory.stat /sys/fs/cgroup/memory/memory.stat 2>/dev/null | head -n 1)
        head -c $((2048 * 1048576 - used + 150 * 1048576)) /dev/zero | tail -c 3G >/dev/null`;
      await shell("server", hog);
      const gone = (await pid()) !== killed;
      assert.ok(
        gone,
        `K3s was not killed: ${(await shell("server", "grep -H oom_kill /sys/fs/cgroup/memory*/* /sys/fs/cgroup/memory.events")).all}`,
      );
      const verified = await checkout.lab("verify", stack);
      const next = await succeeded(await checkout.lab("up"));
      assert.equal(verified.exitCode, 1, verified.all);
      assert.match(
        verified.all,
        /server: K3s runs: .*the kernel killed \d+ processes because memory ran out/,
      );
      assertSafe(next);
      return { happened: `verify names it, then up ${words(next)}`, lost: await lost(was, ...both) };
    },
    options,
  );

  fault("OOM: an app's pod is killed at its limit", async () => {
    await isUp();
    const was = await alive(...both);
    const selector = "--selector=app.kubernetes.io/name=app1";
    const ofPod = (path: string) => kubectl("get", "pods", selector, `--output=jsonpath={.items[0].${path}}`);
    const node = await ofPod("spec.nodeName");
    assert.ok(node === "server" || node === "agent", node);
    let verified: Outcome | undefined;
    for (let time = 0; time < 6 && !/OOMKilled/.test(verified?.all ?? ""); time++) {
      await kubectl("wait", "--for=condition=Ready", "pod", selector, "--timeout=60s");
      const [, id = ""] = (await ofPod("status.containerStatuses[0].containerID")).split("//");
      // Room for what it has, and none for another program.
      const limit = `for folder in $(find /sys/fs/cgroup -type d -name '*${id}*'); do
        used=$(sed -n 's/^\\(anon\\|total_rss\\) //p' $folder/memory.stat 2>/dev/null)
        for file in memory.max memory.limit_in_bytes; do
          if [ -e $folder/$file ]; then echo $((used + 4194304)) >$folder/$file; fi
        done; done`;
      await shell(node, limit);
      await checkout.run(
        "kubectl",
        "exec",
        "deployment/app1",
        "--",
        "node",
        "--eval",
        "Buffer.alloc(3e7, 1)",
      );
      verified = await checkout.lab("verify", "apps");
    }
    assert.match(verified?.all ?? "", /app1: its Deployment: 1 replica, 0 ready; app1-\S+ is .*OOMKilled/);
    assert.equal(verified?.exitCode, 1);
    const next = await succeeded(await checkout.lab("up"));
    assertSafe(next);
    return { happened: `verify names it, then up ${words(next)}`, lost: await lost(was, ...both) };
  });

  fault("the disk of K3s's configuration is full while the server's flags change", async () => {
    await isUp();
    const was = await alive(...both);
    const old = await flagsOf("server");
    const pid = () => shell("server", "systemctl show --property MainPID --value k3s");
    const ran = (await pid()).stdout;
    // The same files on a disk of their own, without room.
    const fill = `set -e; cp -a /etc/rancher /run/kept-rancher; mount -t tmpfs -o size=1m tmpfs /etc/rancher
      cp -a /run/kept-rancher/. /etc/rancher; head -c 2M /dev/zero >/etc/rancher/full || true`;
    await succeeded(await shell("server", fill));
    await change("serverArgs");
    const failed = await checkout.lab("up", stack);
    assert.equal(failed.exitCode, 4, failed.all);
    assert.match(failed.all, /No space is left on a disk/);
    assert.equal(await flagsOf("server"), old);
    assert.equal((await pid()).stdout, ran, "K3s was started again");
    assertSafe(failed);
    await succeeded(await shell("server", "rm /etc/rancher/full"));
    const next = await succeeded(await checkout.lab("up"));
    await succeeded(
      await shell(
        "server",
        "cp -a /etc/rancher /run/new-rancher && umount /etc/rancher && cp -a /run/new-rancher/. /etc/rancher",
      ),
    );
    return {
      happened: `${words(failed)}, K3s runs on with the old flags; with room again ${words(next)}`,
      lost: await lost(was, ...both),
    };
  });

  fault("power loss: the agent, in the middle of a change", async () => {
    await isUp();
    const was = await alive(...both);
    const flag = await change("agentArgs");
    const changing = checkout.lab("up", stack);
    await pWaitFor(async () => (await on("agent", "test", "-d", "/var/lib/k3s-lab/before")).exitCode === 0, {
      interval: 50,
      timeout: 120_000,
    });
    await succeeded(await docker("kill", "--signal", "KILL", container("agent")));
    const failed = await changing;
    assert.equal(failed.exitCode, 1, failed.all);
    const next = await succeeded(await checkout.lab("up"));
    assertSafe(next);
    assert.match(await flagsOf("agent"), new RegExp(flag));
    return { happened: `${words(failed)}; then ${words(next)}`, lost: await lost(was, ...both) };
  });

  fault(
    "power loss: both machines at once, in the middle of a change of the agent's and the server's flags",
    async () => {
      await isUp();
      const was = await alive(...both);
      const flag = await change("serverArgs", "agentArgs");
      const changing = checkout.lab("up", stack);
      await pWaitFor(
        async () => (await on("server", "test", "-d", "/var/lib/k3s-lab/before")).exitCode === 0,
        {
          interval: 50,
          timeout: 120_000,
        },
      );
      await succeeded(await docker("kill", "--signal", "KILL", ...both.map(container)));
      const failed = await changing;
      assert.equal(failed.exitCode, 1, failed.all);
      const next = await succeeded(await checkout.lab("up"));
      assertSafe(next);
      for (const name of both) assert.match(await flagsOf(name), new RegExp(flag));
      return { happened: `${words(failed)}; then ${words(next)}`, lost: await lost(was, ...both) };
    },
  );

  fault("this machine's clock is a day behind, and a day ahead", async () => {
    if (!hasFaketime) return "faketime is not installed";
    await isUp();
    const was = await alive(...both);
    const behind = await labAt("-1d", "verify");
    assert.equal(behind.exitCode, 1, behind.all);
    assert.match(behind.all, /server: its clock: 24 hours ahead of this computer's/);
    assert.match(behind.all, /certificate is not valid yet by this computer's clock: compare `date`/);
    const up = await labAt("-1d", "up");
    assert.equal(up.exitCode, 1, up.all);
    assert.match(up.all, /24 hours ahead of this computer's|not valid yet by this computer's clock/);
    assertSafe(up);
    const ahead = await labAt("+1d", "verify");
    assert.equal(ahead.exitCode, 1, ahead.all);
    assert.match(ahead.all, /server: its clock: 24 hours behind this computer's/);
    const next = await succeeded(await checkout.lab("up"));
    return {
      happened: `verify ${words(behind)}, up ${words(up)}, a day ahead verify ${words(ahead)}; put right, up ${words(next)}`,
      lost: await lost(was, ...both),
    };
  });

  fault("this machine's clock is a day behind: `lab down` of the apps and the lab", async () => {
    if (!hasFaketime) return "faketime is not installed";
    await isUp();
    const was = await alive(...both);
    const apps = await labAt("-1d", "down", "apps");
    assert.equal(apps.exitCode, 1, apps.all);
    assert.match(apps.all, /so the apps of the stack "apps" stay: .*not valid yet by this computer's clock/);
    const cost = await lost(was, ...both);
    const down = await labAt("-1d", "down");
    assert.equal(down.exitCode, 0, down.all);
    const { stdout } = await docker("ps", "--all", "--quiet", "--filter", `name=k3s-lab-${stack}-`);
    assert.equal(stdout, "", "a machine is left");
    return {
      happened: `down apps ${words(apps)}, all stays; down ${words(down)}, nothing is left`,
      lost: cost,
    };
  });
});

describe("three servers, one of them cut off", { concurrency: false }, () => {
  const { fault } = steps();
  const names = ["s1", "s2", "s3"] as const;
  before(async () => {
    checkout = await copyCheckout();
    const server = (name: Name) => `    - {name: ${name}, role: server, ip: ${address[name]}, memory: 1536}`;
    const lines = ["config:", "  k3s-lab:provider: docker", "  k3s-lab:network: 192.168.42.0/24"];
    flags = { serverArgs: "serverArgs: [--write-kubeconfig-mode=644]", agentArgs: "agentArgs: []" };
    const k3s = ["  k3s-lab:k3s:", `    ${flags.serverArgs}`, ""];
    await writeFile(
      join(checkout.directory, `Pulumi.${stack}.yaml`),
      [...lines, "  k3s-lab:machines:", ...names.map(server), ...k3s].join("\n"),
    );
  });
  after(async () => {
    await checkout.lab("down", stack);
    await checkout.remove();
  });

  fault(
    "a cut network: the first of three servers is alone, and flags change",
    async () => {
      await isUp(stack);
      const was = await alive(...names);
      const flags = () => Promise.all(names.map(flagsOf));
      const old = await flags();
      const others = ["s2", "s3"] as const;
      await cut("s1", ...others);
      const began = performance.now();
      const config = ["--context", `k3s-lab-${stack}-2`];
      await pWaitFor(
        async () => (await checkout.run("kubectl", ...config, "get", "configmap", "kept")).exitCode === 0,
        { interval: 500, timeout: 60_000 },
      );
      const away = (performance.now() - began) / 1000;
      // etcd on the one that is alone takes seconds to see that it leads no more.
      await pWaitFor(async () => /update/.test((await succeeded(await preview())).all), {
        interval: 1000,
        timeout: 60_000,
      });
      assertSafe(await preview());
      // Kubernetes gives a node 40 s to be heard of.
      await pWaitFor(
        async () => /s1: the node is Ready: NotReady/.test((await checkout.lab("verify", stack)).all),
        { interval: 2000, timeout: 90_000 },
      );
      const seen = (performance.now() - began) / 1000;
      await change("serverArgs");
      const changed = await checkout.lab("up", stack);
      assert.equal(changed.exitCode, 1, changed.all);
      assert.match(changed.all, /etcd on it has no leader: .*do not hear each other\. Nothing was touched/);
      assertSafe(changed);
      assert.deepEqual(await flags(), old, "a server was changed");
      await kubectl(...config, "create", "configmap", "written", "--from-literal=a=b");
      await reconnect("s1");
      const next = await succeeded(await checkout.lab("up", stack));
      assert.notEqual(await flagsOf("s1"), old[0]);
      await kubectl("get", "configmap", "written");
      return {
        happened: `the others answer within ${away.toFixed(1)} s; verify names it after ${seen.toFixed(0)} s; up ${words(changed)}; then ${words(next)}`,
        lost: await lost(was, ...names),
      };
    },
    options,
  );
});
