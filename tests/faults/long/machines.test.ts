import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, describe } from "node:test";
import { type Checkout, copyCheckout, type Outcome } from "../../e2e/checkout.ts";
import { steps } from "../../steps.ts";

// A lab whose machines are stopped, paused, cut off, deleted and renamed by hand, and whose Docker hangs. After each fault
// the preview tells what is so, `lab up` puts it right, and the cluster is the one that it was.

/** Not the network of a lab that may be up beside this one. */
const subnet = "192.168.57";
const stack = "cluster-faults";
const server = "k3s-lab-cluster-faults-server";
const agent = "k3s-lab-cluster-faults-agent";
let checkout: Checkout;
let cluster: string;

const preview = (...options: string[]): Promise<Outcome> => checkout.pulumi("preview", stack, ...options);
const docker = (...args: string[]): Promise<string> => checkout.output("docker", ...args);
const idOf = (name: string): Promise<string> => docker("inspect", "--format", "{{.Id}}", name);

/** `lab up` puts things right without a question, and a preview shows no change afterwards. */
async function putRight(): Promise<void> {
  await checkout.succeeded(await checkout.lab("up", stack));
  await checkout.succeeded(await preview("--expect-no-changes"));
}

/** What is not as it was: the cluster, machines that are others. */
async function lost(machines: Readonly<Record<string, string>>): Promise<string> {
  const gone: string[] = [];
  if ((await checkout.uid()) !== cluster) gone.push("the cluster");
  for (const [name, id] of Object.entries(machines)) if ((await idOf(name)) !== id) gone.push(name);
  return gone.join(", ") || "nothing";
}
const machines = async (): Promise<Record<string, string>> => ({
  [server]: await idOf(server),
  [agent]: await idOf(agent),
});

describe("machines that were changed by hand", { concurrency: false }, () => {
  const { fault } = steps();
  before(async () => {
    checkout = await copyCheckout();
    await writeFile(
      join(checkout.directory, `Pulumi.${stack}.yaml`),
      [
        "config:",
        `  k3s-lab:network: ${subnet}.0/24`,
        "  k3s-lab:provider: docker",
        "  k3s-lab:machines:",
        `    - {name: server, role: server, ip: ${subnet}.110, cpus: 2, memory: 2048}`,
        `    - {name: agent, role: agent, ip: ${subnet}.111, cpus: 2, memory: 1024}`,
        "",
      ].join("\n"),
    );
    await checkout.succeeded(await checkout.lab("up", stack));
    cluster = await checkout.uid();
  });
  after(async () => {
    await checkout.lab("down", stack);
    await checkout.remove();
  });

  for (const [title, name, ...command] of [
    ["stopped", agent, "stop", agent],
    ["stopped", server, "stop", server],
    ["paused", agent, "pause", agent],
    ["cut off", agent, "network", "disconnect", `vagrant_network_${subnet}.0/24`, agent],
  ] as const)
    fault(`C3: ${name} was ${title} by hand`, async () => {
      const before = await machines();
      await docker(...command);
      const { all } = await checkout.succeeded(await preview());
      assert.match(all, /command:local:Command (agent|server) update/);
      assert.doesNotMatch(all, /to replace|to delete/);
      await putRight();
      return { happened: "the preview shows an update; `lab up` repairs it", lost: await lost(before) };
    });

  fault("labels and taints of running nodes change in the file, and users set some by hand", async () => {
    const before = await machines();
    const file = `Pulumi.${stack}.yaml`;
    const kubectl = (...args: string[]) => checkout.output("kubectl", ...args);
    /** The labels and taints that are looked at here, of both nodes by name: K3s's SQLite lists those changed last at the end. */
    const marks = async () => {
      const { items } = JSON.parse(await kubectl("get", "nodes", "agent", "server", "--output=json")) as {
        items: readonly {
          metadata: { labels: Record<string, string>; annotations: Record<string, string> };
          spec: { taints?: readonly { key: string; effect: string }[] };
        }[];
      };
      return items.map(({ metadata: { labels, annotations }, spec: { taints = [] } }) => [
        ...["disk", "team"].filter((key) => key in labels),
        ...taints.map(({ key, effect }) => `${key}:${effect}`).sort(),
        annotations["k3s-lab/marks"],
      ]);
    };
    await kubectl("label", "node", "agent", "team=x");
    await kubectl("taint", "node", "agent", "other=y:PreferNoSchedule");
    const theirs = ["team", "other:PreferNoSchedule"];
    const taint = "dedicated=database:NoSchedule";
    await checkout.edit(file, "memory: 1024}", `memory: 1024, labels: [disk=ssd], taints: ['${taint}']}`);
    await checkout.edit(file, "memory: 2048}", "memory: 2048, labels: [disk=hdd]}");
    await putRight();
    const whole = [
      ["disk", "team", "dedicated:NoSchedule", "other:PreferNoSchedule", `disk=ssd,${taint}`],
      ["disk", "disk=hdd"],
    ];
    assert.deepEqual(await marks(), whole);
    await kubectl("taint", "node", "agent", "dedicated:NoSchedule-");
    await putRight();
    assert.deepEqual(await marks(), whole);
    await checkout.edit(file, `, labels: [disk=ssd], taints: ['${taint}']`, "");
    await checkout.edit(file, ", labels: [disk=hdd]", "");
    await checkout.succeeded(await checkout.pulumi("up", stack));
    await checkout.succeeded(await preview("--expect-no-changes"));
    assert.deepEqual(await marks(), [[...theirs, undefined], [undefined]]);
    return { happened: "the nodes follow the file; what others set stays", lost: await lost(before) };
  });

  fault("C3: the agent's machine was deleted by hand", async () => {
    const { [server]: id = "" } = await machines();
    await docker("rm", "--force", "--volumes", agent);
    const { all } = await checkout.succeeded(await preview());
    assert.match(all, /command:local:Command agent replace/);
    assert.doesNotMatch(all, /command:local:Command server/);
    await putRight();
    return {
      happened: "only that machine was recreated, without a question",
      lost: await lost({ [server]: id }),
    };
  });

  fault("C3: Docker hangs while it is asked", async () => {
    const before = await machines();
    const pid = Number(await readFile("/run/k3s-lab/docker.pid", "utf8").catch(() => ""));
    if (pid === 0) return "Docker is not the lab's own here, and is nobody's to stop";
    process.kill(pid, "SIGSTOP");
    const { exitCode, all } = await preview().finally(() => process.kill(pid, "SIGCONT"));
    assert.notEqual(exitCode, 0);
    assert.match(all, /Docker does not list .*no answer within 20 s.*nothing is touched/);
    assert.doesNotMatch(all, /to replace/);
    await checkout.succeeded(await preview("--expect-no-changes"));
    return { happened: "the preview fails with the reason", lost: await lost(before) };
  });

  fault("C4: the agent is renamed and keeps its address", async () => {
    const before = await machines();
    await checkout.edit(`Pulumi.${stack}.yaml`, "name: agent, role", "name: worker, role");
    const { exitCode, all } = await checkout.lab("up", stack);
    assert.notEqual(exitCode, 0, all);
    assert.match(all, /worker has the address 192\.168\.57\.111 in the stack file, which the machine agent/);
    await checkout.edit(`Pulumi.${stack}.yaml`, "name: worker, role", "name: agent, role");
    await checkout.succeeded(await preview("--expect-no-changes"));
    return { happened: `exit ${exitCode}, refused in a sentence`, lost: await lost(before) };
  });

  fault("H1: `lab down` with a stack file that is invalid YAML", async () => {
    // Docker may have ended with the last machine, and then cannot be asked.
    const pids = [server, agent].map((name) => docker("inspect", "--format", "{{.State.Pid}}", name));
    const folders = (await Promise.all(pids)).map((pid) => `/proc/${pid}`);
    assert.ok(folders.every(existsSync));
    await checkout.edit(`Pulumi.${stack}.yaml`, "config:", "config: [");
    const { exitCode, all } = await checkout.lab("down", stack);
    assert.equal(exitCode, 0, all);
    assert.deepEqual(folders.filter(existsSync), [], "a machine is left");
    await checkout.edit(`Pulumi.${stack}.yaml`, "config: [", "config:");
    return { happened: "`lab down` uses what was recorded", lost: "nothing" };
  });
});
