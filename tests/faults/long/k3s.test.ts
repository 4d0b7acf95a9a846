import assert from "node:assert/strict";
import { createHash, createHmac } from "node:crypto";
import { readFile, rm, writeFile } from "node:fs/promises";
import { createServer, type IncomingMessage } from "node:http";
import { Agent, get } from "node:https";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { after, before, describe } from "node:test";
import pWaitFor from "p-wait-for";
import { parse } from "yaml";
import { type Checkout, copyCheckout, type Outcome } from "../../e2e/checkout.ts";
import { followerOf, haveSameRevision, wayBack } from "../../e2e/etcd.ts";
import { steps } from "../../steps.ts";

// K3s on real machines: a ConfigMap stands for what may not be lost. The faults build on each other.

let checkout: Checkout;
const network = "192.168.77";
const machines = {
  s1: `{name: s1, role: server, ip: ${network}.11}`,
  s2: `{name: s2, role: server, ip: ${network}.12}`,
  s3: `{name: s3, role: server, ip: ${network}.13}`,
  a1: `{name: a1, role: agent, ip: ${network}.21, memory: 1024}`,
};
type Name = keyof typeof machines;

/** Writes the stack file: these machines in this order, and flags besides the usual. */
const writeStack = (
  names: readonly Name[],
  flags: { server?: string; agent?: string; secrets?: string } = {},
): Promise<void> =>
  writeFile(
    join(checkout.directory, "Pulumi.cluster.yaml"),
    [
      "config:",
      "  k3s-lab:provider: docker",
      `  k3s-lab:network: ${network}.0/24`,
      "  k3s-lab:machines:",
      ...names.map((name) => `    - ${machines[name]}`),
      "  k3s-lab:k3s:",
      `    serverArgs: [--write-kubeconfig-mode=644, "--disable=traefik,metrics-server"${flags.server ? `, ${flags.server}` : ""}]`,
      `    agentArgs: [${flags.agent ?? ""}]`,
      ...(flags.secrets ? [`    serverSecrets: ${flags.secrets}`] : []),
      "",
    ].join("\n"),
  );

const succeeded = (outcome: Outcome): Promise<Outcome> => checkout.succeeded(outcome);
const up = () => checkout.lab("up", "cluster");
const on = (machine: Name, ...command: string[]) =>
  checkout.run("docker", "exec", `k3s-lab-cluster-${machine}`, ...command);
const kubeconfig = () => join(checkout.directory, ".lab/cluster/kubeconfig");
const kubectl = (...args: string[]) => checkout.output("kubectl", "--kubeconfig", kubeconfig(), ...args);

/** What is not there any more, or not Ready, of what the stack file names. */
async function lost(...names: readonly Name[]): Promise<string> {
  const ready = '{range .items[*]}{.metadata.name}={.status.conditions[?(@.type=="Ready")].status} {end}';
  const wanted = [...names]
    .sort()
    .map((name) => `${name}=True`)
    .join(" ");
  let nodes = "";
  await pWaitFor(
    async () => {
      const asked = ["--kubeconfig", kubeconfig(), "get", "nodes", "--output", `jsonpath=${ready}`];
      nodes = (await checkout.run("kubectl", ...asked)).stdout.trim().split(" ").sort().join(" ");
      return nodes === wanted;
    },
    { interval: 1000, timeout: 60_000 },
  ).catch(() => {});
  const kept = await checkout.run("kubectl", "--kubeconfig", kubeconfig(), "get", "configmap", "kept");
  return (
    [
      ...(nodes === wanted ? [] : [`nodes: ${nodes || "none"}`]),
      ...(kept.exitCode === 0 ? [] : ["the ConfigMap"]),
    ].join(", ") || "nothing"
  );
}

/** A preview says that something is to be done, `lab up` does it, and then there is nothing more to do. */
async function repaired(): Promise<void> {
  const preview = (...options: string[]) => checkout.pulumi("preview", "cluster", ...options);
  assert.match((await succeeded(await preview())).all, /to (update|replace)/);
  await succeeded(await up());
  await succeeded(await preview("--expect-no-changes"));
}

/** Asks the API every 200 ms through any server, until `work` is done. @returns the longest time without an answer, ms. */
async function longestGap(addresses: readonly string[], work: () => Promise<unknown>): Promise<number> {
  const config = parse(await readFile(kubeconfig(), "utf8")) as {
    users: [{ user: Readonly<Record<"client-certificate-data" | "client-key-data", string>> }];
  };
  const { user } = config.users[0];
  const agent = new Agent({
    cert: Buffer.from(user["client-certificate-data"], "base64"),
    key: Buffer.from(user["client-key-data"], "base64"),
    rejectUnauthorized: false,
  });
  const answers = (address: string) =>
    new Promise<boolean>((resolve) => {
      const url = `https://${address}:6443/api/v1/namespaces/default/configmaps/kept`;
      const request = get(url, { agent, timeout: 500 }, (response) => {
        response.resume();
        response.on("end", () => resolve(response.statusCode === 200));
      });
      request.on("timeout", () => request.destroy());
      request.on("error", () => resolve(false));
    });
  let isDone = false;
  let last = performance.now();
  let longest = 0;
  const asking = (async () => {
    while (!isDone) {
      const begun = performance.now();
      for (const address of addresses)
        if (await answers(address)) {
          longest = Math.max(longest, performance.now() - last);
          last = performance.now();
          break;
        }
      const rest = 200 - (performance.now() - begun);
      if (rest > 0) await new Promise((resolve) => setTimeout(resolve, rest));
    }
  })();
  try {
    await work();
  } finally {
    isDone = true;
    await asking;
  }
  return Math.max(longest, performance.now() - last);
}

/** The servers that etcd counts, by their own names or, before they have started, by their ids. */
async function etcdMembers(server: Name): Promise<readonly string[]> {
  const tls = "/var/lib/rancher/k3s/server/tls/etcd";
  const files = [
    "--cacert",
    `${tls}/server-ca.crt`,
    "--cert",
    `${tls}/client.crt`,
    "--key",
    `${tls}/client.key`,
  ];
  const url = "https://127.0.0.1:2379/v3/cluster/member/list";
  const { stdout } = await succeeded(
    await on(server, "curl", "--silent", "--fail", ...files, "--data", "{}", url),
  );
  const { members } = JSON.parse(stdout) as { members: readonly { ID: string; name?: string }[] };
  return members.map(({ ID, name }) => name?.replace(/-[0-9a-f]{8}$/, "") ?? ID).sort();
}

/** Whether a request is signed with this key: https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html */
function isSigned({ method, url = "", headers }: IncomingMessage, secret: string): boolean {
  const [, scope = "", names = "", signature] =
    /Credential=lab-key\/([^,]+), *SignedHeaders=([^,]+), *Signature=(\w+)/.exec(
      headers.authorization ?? "",
    ) ?? [];
  const { pathname, searchParams } = new URL(url, "http://s3");
  searchParams.sort();
  const signed = names.split(";").map((name) => `${name}:${headers[name]}\n`);
  const asked = [
    method,
    pathname,
    searchParams,
    signed.join(""),
    names,
    headers["x-amz-content-sha256"],
  ].join("\n");
  const hash = createHash("sha256").update(asked).digest("hex");
  const hmac = (key: string | Buffer, text: string) => createHmac("sha256", key).update(text).digest();
  const key = scope.split("/").reduce<string | Buffer>(hmac, `AWS4${secret}`);
  const text = ["AWS4-HMAC-SHA256", headers["x-amz-date"], scope, hash].join("\n");
  return hmac(key, text).toString("hex") === signature;
}

const seconds = (milliseconds: number): string => `${(milliseconds / 1000).toFixed(1)} s`;

describe("K3s on a server and an agent", { concurrency: false }, () => {
  const { fault } = steps();
  before(async () => {
    checkout = await copyCheckout();
    await writeStack(["a1", "s1"]);
    await succeeded(await up());
    await kubectl("create", "configmap", "kept", "--from-literal=a=b");
  });
  after(async () => {
    await checkout.lab("down", "cluster");
    await checkout.remove();
  });

  for (const [what, flags] of [
    ["a server's", { server: "--kubelet-arg=feature-gates=Nonsense=true" }],
    ["an agent's", { agent: "--kubelet-arg=feature-gates=Nonsense=true" }],
  ] as const)
    fault(`C1: on a running lab: ${what} flag that makes K3s exit`, async () => {
      await writeStack(["a1", "s1"], flags);
      const failed = await up();
      assert.equal(failed.exitCode, 1, failed.all);
      assert.match(failed.all, /the change failed, and K3s runs as before/);
      const cost = await lost("a1", "s1");
      await writeStack(["a1", "s1"]);
      await succeeded(await up());
      return { happened: "exit 1 with K3s's reason, old flags restored; the next up succeeds", lost: cost };
    });

  fault("C1: a server-only flag among the agents' is rejected", async () => {
    await writeStack(["a1", "s1"], { agent: "--tls-san=x" });
    assert.equal((await up()).exitCode, 2);
    await writeStack(["a1", "s1"]);
    return { happened: "exit 2, nothing touched", lost: await lost("a1", "s1") };
  });

  fault("C1: the machine is reset in the middle of a change", async () => {
    await writeStack(["a1", "s1"], { server: "--v=1" });
    const changing = up();
    await pWaitFor(async () => (await on("s1", "test", "-d", "/var/lib/k3s-lab/before")).exitCode === 0, {
      interval: 100,
      timeout: 120_000,
    });
    await checkout.run("docker", "kill", "k3s-lab-cluster-s1");
    assert.notEqual((await changing).exitCode, 0);
    await writeStack(["a1", "s1"]);
    await succeeded(await up());
    await succeeded(await up());
    const { exitCode } = await on("s1", "test", "-d", "/var/lib/k3s-lab/before");
    assert.notEqual(exitCode, 0, "the change is still open");
    return { happened: "the next run continues by itself", lost: await lost("a1", "s1") };
  });

  const harms: readonly (readonly [string, () => Promise<unknown>])[] = [
    ["the server's K3s is stopped by hand", () => on("s1", "systemctl", "stop", "k3s")],
    ["the agent's K3s is uninstalled by hand", () => on("a1", "k3s-agent-uninstall.sh")],
    [
      "the agent's unit is changed by hand",
      () => on("a1", "sh", "-c", "echo '# x' >>/etc/systemd/system/k3s-agent.service"),
    ],
    ["the agent's node is deleted", () => kubectl("delete", "node", "a1")],
    ["the kubeconfig is deleted", () => rm(kubeconfig())],
  ];
  for (const [what, harm] of harms)
    fault(`H6: ${what}`, async () => {
      await harm();
      await repaired();
      return {
        happened: "the preview shows it; `lab up` repairs it; then no change",
        lost: await lost("a1", "s1"),
      };
    });

  fault("plain pulumi with --parallel 2 creates a lab whose agents come before the server", async () => {
    // `lab down` would end the lab's Docker too, and plain Pulumi does not start it.
    await succeeded(await checkout.pulumi("destroy", "cluster"));
    await writeStack(["a1", "s1"]);
    await succeeded(await checkout.pulumi("up", "cluster", "--parallel", "2"));
    await kubectl("create", "configmap", "kept", "--from-literal=a=b");
    return { happened: "it starts", lost: await lost("a1", "s1") };
  });
});

describe("K3s on three servers", { concurrency: false }, () => {
  const { test, fault } = steps();
  const addresses = ["11", "12", "13"].map((host) => `${network}.${host}`);
  /** How many clusters the three servers are. */
  const clusters = async (): Promise<number> => {
    const asked = ["k3s-lab-cluster", "k3s-lab-cluster-2", "k3s-lab-cluster-3"].map((context) =>
      kubectl("--context", context, "get", "nodes", "--output=name"),
    );
    return new Set(await Promise.all(asked)).size;
  };
  before(async () => {
    checkout = await copyCheckout();
    await writeStack(["a1", "s1", "s2", "s3"]);
    await succeeded(await up());
    await kubectl("create", "configmap", "kept", "--from-literal=a=b");
  });
  after(async () => {
    await checkout.lab("down", "cluster");
    await checkout.remove();
  });

  fault("H9: flags change on three servers", async () => {
    await writeStack(["a1", "s1", "s2", "s3"], { server: "--v=1" });
    const gap = await longestGap(addresses, async () => succeeded(await up()));
    const away = gap > 1000 ? `the API for ${seconds(gap)}` : "nothing";
    const cost = await lost("a1", "s1", "s2", "s3");
    return {
      happened: `one after the other, API away for ${seconds(gap)}`,
      lost: cost === "nothing" ? away : cost,
    };
  });

  fault("C1: on three servers: a flag that makes K3s exit is rolled back under requests", async () => {
    await writeStack(["a1", "s1", "s2", "s3"], { server: "--kubelet-arg=feature-gates=Nonsense=true" });
    let failed: Outcome | undefined;
    const gap = await longestGap(addresses, async () => {
      failed = await up();
    });
    assert.equal(failed?.exitCode, 1, failed?.all);
    assert.match(failed.all, /the change failed, and K3s runs as before/);
    await writeStack(["a1", "s1", "s2", "s3"], { server: "--v=1" });
    await succeeded(await up());
    const cost = await lost("a1", "s1", "s2", "s3");
    const away = gap > 1000 ? `the API for ${seconds(gap)}` : "nothing";
    return {
      happened: `exit 1, the old flags run, API away for ${seconds(gap)}`,
      lost: cost === "nothing" ? away : cost,
    };
  });

  fault("C9: the first of three servers is lost with its disk", async () => {
    let installed = "";
    const agent = async () =>
      (await on("a1", "stat", "--format=%Y", "/var/lib/rancher/k3s/agent/client-kubelet.crt")).stdout;
    const before = await agent();
    const gap = await longestGap(addresses, async () => {
      await succeeded(await checkout.run("docker", "rm", "--force", "--volumes", "k3s-lab-cluster-s1"));
      await succeeded(await up());
    });
    installed = await agent();
    assert.equal(installed, before, "the agent was installed again");
    // etcd misses a leader that says nothing for its election's 5 to 10 s.
    assert.ok(gap < 15_000, `the API was away for ${seconds(gap)}`);
    assert.equal(await clusters(), 1);
    return {
      happened: `it joined the others again, the agent stayed, API away for ${seconds(gap)}`,
      lost: await lost("a1", "s1", "s2", "s3"),
    };
  });

  fault(
    "C9: plain vagrant: the first of three servers is lost with its disk, then uninstalled by hand",
    async () => {
      await succeeded(await checkout.run("docker", "rm", "--force", "--volumes", "k3s-lab-cluster-s1"));
      await succeeded(await checkout.run("vagrant", "up", "s1", "--provision"));
      assert.equal(await clusters(), 1);
      await succeeded(await on("s1", "k3s-uninstall.sh"));
      for (const name of ["s2", "s3"]) await checkout.run("docker", "pause", `k3s-lab-cluster-${name}`);
      const refused = await checkout.run("vagrant", "provision", "s1");
      for (const name of ["s2", "s3"]) await checkout.run("docker", "unpause", `k3s-lab-cluster-${name}`);
      assert.notEqual(refused.exitCode, 0, refused.all);
      assert.match(refused.all, /do not say whether they have the cluster's data: s2 s3\./);
      await succeeded(await checkout.run("vagrant", "provision", "s1"));
      assert.equal(await clusters(), 1);
      // Pulumi knows another s1.
      const asked = await up();
      assert.equal(asked.exitCode, 3, asked.all);
      assert.match(asked.all, /replaced \(stack cluster\): K3s on s1, with its data\n/);
      await succeeded(await checkout.lab("up", "cluster", "--replace"));
      assert.equal(await clusters(), 1);
      return {
        happened: "it rejoined the others twice; while they were paused it was refused; `lab up` asked",
        lost: await lost("a1", "s1", "s2", "s3"),
      };
    },
  );

  fault("two of three servers are gone with their disks, and a follower lost its memory", async () => {
    const servers = ["s1", "s2", "s3"] as const;
    const exec = async (name: string, ...command: string[]) =>
      (await succeeded(await on(name as Name, ...command))).stdout.trim();
    const left = await followerOf(exec, servers);
    const gone = servers.filter((name) => name !== left);
    const containers = gone.map((name) => `k3s-lab-cluster-${name}`);
    await succeeded(await checkout.run("docker", "rm", "--force", "--volumes", ...containers));
    await succeeded(await checkout.run("docker", "kill", `k3s-lab-cluster-${left}`));
    const refused = await up();
    assert.equal(refused.exitCode, 1, refused.all);
    assert.match(refused.all, /docs\/troubleshooting\.md, 'A cluster that lost most of its servers'/);
    const commands = (await wayBack(checkout, "Machines and hosts")).replace(
      "server.cluster",
      `${left}.cluster`,
    );
    await succeeded(await checkout.run("timeout", "900", "bash", "-euxc", commands));
    assert.deepEqual(await etcdMembers(left), servers);
    assert.equal(await clusters(), 1);
    await haveSameRevision(exec, servers);
    await succeeded(await checkout.lab("verify", "cluster"));
    const again = await on(
      left,
      "bash",
      "-c",
      await readFile(join(checkout.directory, "vagrant/provision/reset.sh"), "utf8"),
    );
    assert.match(again.all, /the cluster answers here: it has its majority/);
    return {
      happened: "exit 1; after the documented recovery all three run again, with the same revision",
      lost: await lost("a1", "s1", "s2", "s3"),
    };
  });

  fault("three servers become one: the first in the file and another leave", async () => {
    assert.deepEqual(await etcdMembers("s3"), ["s1", "s2", "s3"]);
    await writeStack(["a1", "s3"], { server: "--v=1" });
    const gap = await longestGap([`${network}.13`], async () =>
      succeeded(await checkout.lab("up", "cluster", "--replace")),
    );
    assert.deepEqual(await etcdMembers("s3"), ["s3"]);
    const away = gap > 1000 ? `the API for ${seconds(gap)}` : "nothing";
    const cost = await lost("a1", "s3");
    return {
      happened: `they leave etcd one by one, API away for ${seconds(gap)}`,
      lost: cost === "nothing" ? away : cost,
    };
  });

  test("k3s.serverSecrets: K3s signs with keys that no process and no unit shows, by Pulumi and by plain Vagrant", async () => {
    const secret = "hunter2hunter2";
    await writeFile(
      join(checkout.directory, "secrets.yaml"),
      `etcd-s3-access-key: lab-key\netcd-s3-secret-key: ${secret}\n`,
      { mode: 0o600 },
    );
    const signed: boolean[] = [];
    const store = createServer((request, response) => {
      signed.push(isSigned(request, secret));
      request.resume();
      request.on("end", () => response.writeHead(200, { etag: '"1"' }).end());
    });
    await new Promise<void>((resolve) => store.listen(0, `${network}.1`, resolve));
    const { port } = store.address() as AddressInfo;
    try {
      const s3 = [
        "--etcd-s3",
        "--etcd-s3-insecure",
        "--etcd-s3-bucket=lab",
        `--etcd-s3-endpoint=${network}.1:${port}`,
      ];
      await writeStack(["a1", "s3"], {
        server: s3.map((flag) => `"${flag}"`).join(", "),
        secrets: "secrets.yaml",
      });
      await succeeded(await up());
      // It reads the secret from K3s's configuration; the rest is in the unit.
      await succeeded(await on("s3", "k3s", "etcd-snapshot", "save", ...s3));
      assert.ok(signed.length > 0 && signed.every(Boolean), `requests signed with the key: ${signed}`);
    } finally {
      store.close();
    }
    const shown = await on(
      "s3",
      "sh",
      "-c",
      `cat /proc/*/cmdline /etc/systemd/system/k3s* | grep -ac '[h]unter2'`,
    );
    assert.equal(shown.stdout, "0");
    const file = "/etc/rancher/k3s/config.yaml.d/k3s-lab-secret.yaml";
    assert.equal((await on("s3", "stat", "--format=%a %U", file)).stdout, "600 root");
    const started = () => on("s3", "systemctl", "show", "--property=ExecMainStartTimestamp", "k3s");
    const before = (await started()).stdout;
    await succeeded(await checkout.run("vagrant", "provision", "s3"));
    assert.equal((await started()).stdout, before, "for plain Vagrant the same file was a change");
  });
});
